"""The tools of the starter tasks, and requests for calls of them."""

from __future__ import annotations

from random import Random
from typing import Any

from testbench_dagster.tasks.tools.questions import (
    Ask,
    Tool,
    flag,
    list_of,
    number,
    one_of,
    record,
    text,
    whole,
)
from testbench_dagster.tasks.tools.questions.words import (
    CITIES,
    CLOCK,
    FIRST_NAMES,
    ISO_DATE,
    PRODUCTS,
    RESTAURANTS,
    STREETS,
    WEEKDAYS,
    address,
    clock,
    day,
    joined,
    money,
    person,
    plain,
    said_day,
    several,
)

_ROOMS = ("kitchen", "bedroom", "bathroom", "office", "hallway", "living room")
_CURRENCIES = ("EUR", "USD", "GBP", "CHF", "JPY", "SEK")
_LANGUAGES = ("english", "french", "german", "italian", "polish", "portuguese", "spanish", "turkish")
_CABINS = ("economy", "business", "first")


def _weather(rng: Random) -> Ask:
    city, when = rng.choice(CITIES), day(rng)
    arguments = {"city": city, "date": when.isoformat()}
    clause = rng.choice(
        ("get the weather forecast for {0} on {1}", "check what the weather will be in {0} on {1}")
    )
    clause = clause.format(city, said_day(rng, when))
    if rng.random() < 0.4:
        unit = rng.choice(("fahrenheit", "celsius"))
        return Ask(f"{clause}, in degrees {unit.capitalize()}", {**arguments, "unit": unit})
    return Ask(clause, arguments)


def _flights(rng: Random) -> Ask:
    (origin, destination), when = rng.sample(CITIES, 2), day(rng)
    arguments: dict[str, Any] = {"origin": origin, "destination": destination, "date": when.isoformat()}
    clause = f"look for flights from {origin} to {destination} on {said_day(rng, when)}"
    if rng.random() < 0.6:
        arguments["passengers"] = people = rng.randint(2, 6)
        clause += f" for {people} passengers"
    if rng.random() < 0.5:
        arguments["cabin"] = cabin = rng.choice(_CABINS[1:])
        clause += f" in {cabin} class"
    if rng.random() < 0.4:
        arguments["direct_only"] = True
        clause += ", direct flights only"
    return Ask(clause, arguments)


def _hotel(rng: Random) -> Ask:
    city, when, nights, guests = rng.choice(CITIES), day(rng), rng.randint(2, 9), rng.randint(1, 4)
    arguments = {"city": city, "check_in": when.isoformat(), "nights": nights, "guests": guests}
    clause = f"book a hotel room in {city} from {said_day(rng, when)} for {nights} nights and {guests} "
    clause += "guest" if guests == 1 else "guests"
    if rng.random() < 0.5:
        return Ask(f"{clause}, with breakfast", {**arguments, "breakfast": True})
    return Ask(clause, arguments)


def _table(rng: Random) -> Ask:
    place, when, (time, said), size = (
        rng.choice(RESTAURANTS),
        day(rng),
        clock(rng, 12, 21),
        rng.randint(2, 12),
    )
    arguments = {"restaurant": place, "date": when.isoformat(), "time": time, "party_size": size}
    clause = f"reserve a table for {size} at {place} on {said_day(rng, when)} at {said}"
    if rng.random() < 0.4:
        return Ask(f"{clause}, outdoors", {**arguments, "outdoors": True})
    return Ask(clause, arguments)


def _order_food(rng: Random) -> Ask:
    dishes = several(
        rng, ("margherita pizza", "green curry", "lentil soup", "caesar salad", "dumplings"), 1, 3
    )
    counts = [rng.randint(2, 5) for _ in dishes]
    place = rng.choice(RESTAURANTS)
    items = [{"dish": dish, "quantity": n} for dish, n in zip(dishes, counts, strict=True)]
    said = joined([f"{n} portions of {dish}" for dish, n in zip(dishes, counts, strict=True)])
    arguments = {"restaurant": place, "items": items}
    if rng.random() < 0.5:
        return Ask(f"order {said} from {place}, to be picked up", {**arguments, "pickup": True})
    return Ask(f"order {said} from {place} for delivery", arguments)


def _transfer(rng: Random) -> Ask:
    source, amount = rng.choice(("checking", "savings")), money(rng, 10, 2000)
    currency, to = rng.choice(_CURRENCIES[:4]), person(rng)
    arguments = {"from_account": source, "recipient": to, "amount": amount, "currency": currency}
    clause = f"transfer {plain(amount)} {currency} from my {source} account to {to}"
    if rng.random() < 0.5:
        note = rng.choice(("rent", "concert tickets", "invoice 2231", "birthday gift", "shared groceries"))
        return Ask(f'{clause} with the note "{note}"', {**arguments, "note": note})
    return Ask(clause, arguments)


def _currency(rng: Random) -> Ask:
    source, target = rng.sample(_CURRENCIES, 2)
    amount = money(rng, 5, 9000)
    return Ask(
        rng.choice(("convert {0} {1} into {2}", "work out what {0} {1} are in {2}")).format(
            plain(amount), source, target
        ),
        {"amount": amount, "source": source, "target": target},
    )


def _loan(rng: Random) -> Ask:
    principal, rate, years = rng.randint(20, 400) * 1000, rng.randint(5, 75) / 10, rng.randint(5, 30)
    arguments = {"principal": principal, "annual_rate_percent": rate, "years": years}
    clause = (
        f"calculate the payments of a loan of {principal} over {years} years at {plain(rate)} percent a year"
    )
    if rng.random() < 0.5:
        often, said = rng.choice(((4, "quarterly"), (1, "yearly"), (2, "half-yearly")))
        return Ask(f"{clause}, paid {said}", {**arguments, "payments_per_year": often})
    return Ask(clause, arguments)


def _event(rng: Random) -> Ask:
    title = rng.choice(
        ("Budget review", "Dentist", "Choir practice", "Team lunch", "Parents' evening", "Sprint planning")
    )
    when, (time, said), minutes = day(rng), clock(rng, 8, 19), rng.choice((30, 45, 60, 90, 120))
    arguments = {"title": title, "date": when.isoformat(), "start": time, "duration_minutes": minutes}
    clause = f'put "{title}" in my calendar on {said_day(rng, when)} at {said} for {minutes} minutes'
    if rng.random() < 0.5:
        guests = [address(rng) for _ in range(rng.randint(1, 3))]
        arguments["attendees"] = guests
        clause += f" and invite {joined(guests)}"
    return Ask(clause, arguments)


def _timer(rng: Random) -> Ask:
    minutes, label = rng.randint(2, 90), rng.choice(("pasta", "laundry", "tea", "bread", "stretching", "nap"))
    if rng.random() < 0.5:
        seconds = rng.choice((10, 15, 20, 30, 40, 45))
        return Ask(
            f'set a timer called "{label}" for {minutes} minutes and {seconds} seconds',
            {"label": label, "minutes": minutes, "seconds": seconds},
        )
    return Ask(f'set a {minutes}-minute timer called "{label}"', {"label": label, "minutes": minutes})


def _thermostat(rng: Random) -> Ask:
    room, degrees = rng.choice(_ROOMS), rng.randint(32, 50) / 2
    arguments = {"room": room, "temperature": degrees}
    clause = f"set the thermostat in the {room} to {plain(degrees)} degrees"
    if rng.random() < 0.5:
        mode = rng.choice(("heat", "cool"))
        return Ask(f"{clause} in {mode} mode", {**arguments, "mode": mode})
    return Ask(clause, arguments)


def _lights(rng: Random) -> Ask:
    room = rng.choice(_ROOMS)
    if rng.random() < 0.3:
        rooms = several(rng, _ROOMS, 2, 3)
        return Ask(f"switch off the lights in the rooms {joined(rooms)}", {"rooms": rooms, "on": False})
    level = rng.randrange(5, 100, 5)
    return Ask(
        f"switch on the lights in the {room} at {level} percent brightness",
        {"rooms": [room], "on": True, "brightness": level},
    )


def _vacuum(rng: Random) -> Ask:
    rooms, (time, said) = several(rng, _ROOMS, 1, 3), clock(rng)
    arguments = {"rooms": rooms, "start": time}
    clause = f"have the vacuum robot clean the {joined(rooms)} at {said}"
    if rng.random() < 0.5:
        return Ask(f"{clause}, in quiet mode", {**arguments, "quiet": True})
    return Ask(clause, arguments)


def _playlist(rng: Random) -> Ask:
    songs = rng.sample(
        (
            ("Blue Harbour", "The Lanterns"), ("Slow Trains", "Mira Holt"), ("Paper Moon", "Kitefield"),
            ("Northern Rain", "Ada Vale"), ("Second Summer", "The Ferrymen"), ("Glass Road", "Otto Lind"),
            ("Wild Mint", "Sora Bay"), ("Tin Roof", "Old Quarry"),
        ),
        rng.randint(1, 3),
    )  # fmt: skip
    name = rng.choice(("Sunday morning", "Long drive", "Focus", "Kitchen dance", "Rainy day", "Warm-up"))
    said = joined([f'"{title}" by {artist}' for title, artist in songs])
    arguments = {"name": name, "songs": [{"title": title, "artist": artist} for title, artist in songs]}
    if rng.random() < 0.4:
        return Ask(f'create a public playlist "{name}" with {said}', {**arguments, "public": True})
    return Ask(f'create a playlist "{name}" with {said}', arguments)


def _volume(rng: Random) -> Ask:
    room, level = rng.choice(_ROOMS), rng.randint(5, 95)
    return Ask(f"set the volume of the {room} speaker to {level}", {"speaker": room, "level": level})


def _cart(rng: Random) -> Ask:
    names = several(rng, PRODUCTS, 1, 3)
    counts = [rng.randint(1, 9) for _ in names]
    items = [{"product": name, "quantity": n} for name, n in zip(names, counts, strict=True)]
    said = joined([f"{n} x {name}" for name, n in zip(names, counts, strict=True)])
    if rng.random() < 0.4:
        return Ask(f"put {said} into my cart, gift-wrapped", {"items": items, "gift_wrap": True})
    return Ask(f"add {said} to my shopping cart", {"items": items})


def _parcel(rng: Random) -> Ask:
    code = f"{rng.choice(('AX', 'BR', 'KN', 'ZT'))}{rng.randrange(10**7, 10**8)}"
    carrier = rng.choice(("postnord", "dhl", "ups", "gls"))
    clause = rng.choice(("find out where my {1} parcel {0} is", "track the parcel {0}, sent with {1}"))
    return Ask(clause.format(code, carrier.upper()), {"tracking_number": code, "carrier": carrier})


def _discount(rng: Random) -> Ask:
    code = f"{rng.choice(('SPRING', 'HELLO', 'THANKS', 'AUTUMN'))}{rng.randint(5, 99)}"
    percent, when = rng.choice((5, 7.5, 10, 12.5, 15, 20, 25)), day(rng)
    arguments: dict[str, Any] = {"code": code, "percent": percent, "valid_until": when.isoformat()}
    clause = (
        f"create the discount code {code} for {plain(percent)} percent off, valid until {said_day(rng, when)}"
    )
    if rng.random() < 0.5:
        kinds = several(rng, ("books", "garden", "kitchen", "toys", "sports"), 1, 3)
        arguments["categories"] = kinds
        clause += f", for the categories {joined(kinds)} only" if len(kinds) > 1 else f", for {kinds[0]} only"
    return Ask(clause, arguments)


def _orders(rng: Random) -> Ask:
    customer, status = rng.randint(1000, 9999), rng.choice(("open", "shipped", "returned", "cancelled"))
    arguments = {"customer_id": customer, "status": status}
    if rng.random() < 0.5:
        limit = rng.randint(3, 50)
        return Ask(
            f"list at most {limit} {status} orders of customer {customer}", {**arguments, "limit": limit}
        )
    return Ask(f"list the {status} orders of customer number {customer}", arguments)


def _move(rng: Random) -> Ask:
    customer, street, house = rng.randint(1000, 9999), rng.choice(STREETS), rng.randint(1, 180)
    code, city = f"{rng.randrange(10000, 99999)}", rng.choice(CITIES)
    return Ask(
        f"change the address of customer {customer} to {street} {house}, {code} {city}",
        {
            "customer_id": customer,
            "address": {"street": street, "house_number": house, "postal_code": code, "city": city},
        },
    )


def _workout(rng: Random) -> Ask:
    activity, minutes = (
        rng.choice(("running", "cycling", "swimming", "rowing", "hiking")),
        rng.randint(15, 180),
    )
    arguments = {"activity": activity, "minutes": minutes}
    clause = f"log {minutes} minutes of {activity}"
    if rng.random() < 0.6:
        distance = rng.randint(10, 400) / 10
        return Ask(f"{clause} over {plain(distance)} km", {**arguments, "distance_km": distance})
    return Ask(clause, arguments)


def _pressure(rng: Random) -> Ask:
    upper, lower = rng.randint(102, 168), rng.randint(61, 99)
    arguments = {"systolic": upper, "diastolic": lower}
    clause = f"record a blood pressure of {upper} over {lower}"
    if rng.random() < 0.5:
        pulse = rng.randint(48, 110)
        return Ask(f"{clause} with a pulse of {pulse}", {**arguments, "pulse": pulse})
    return Ask(clause, arguments)


def _mail(rng: Random) -> Ask:
    to = [address(rng) for _ in range(rng.randint(1, 2))]
    subject = rng.choice(("Keys", "Minutes of Monday", "New contract", "Lost umbrella", "Menu for the party"))
    body = rng.choice(
        (
            "They are with the neighbour.", "Please read them by tomorrow.", "I will call you at noon.",
            "Can you send me the final version?", "Thank you for your help.",
        )
    )  # fmt: skip
    arguments = {"to": to, "subject": subject, "body": body}
    clause = f'send an e-mail to {joined(to)} with the subject "{subject}" and the text "{body}"'
    if rng.random() < 0.4:
        level = rng.choice(("high", "low"))
        return Ask(f"{clause}, with {level} priority", {**arguments, "priority": level})
    return Ask(clause, arguments)


def _translate(rng: Random) -> Ask:
    source, target = rng.sample(_LANGUAGES, 2)
    phrase = rng.choice(
        (
            "Where is the station?", "The soup is cold.", "We are closed on Mondays.", "Two tickets, please.",
            "Mind the step.", "The bridge was built last year.",
        )
    )  # fmt: skip
    return Ask(
        f'translate "{phrase}" from {source.capitalize()} to {target.capitalize()}',
        {"text": phrase, "source": source, "target": target},
    )


def _quadratic(rng: Random) -> Ask:
    a, b, c = rng.randint(1, 9), rng.randint(-20, 20), rng.randint(-30, 30)
    if rng.random() < 0.4:
        return Ask(
            f"solve the quadratic equation with a = {a}, b = {b} and c = {c}, complex roots included",
            {"a": a, "b": b, "c": c, "complex_roots": True},
        )
    return Ask(
        f"solve the quadratic equation with the coefficients a = {a}, b = {b} and c = {c}",
        {"a": a, "b": b, "c": c},
    )


def _statistics(rng: Random) -> Ask:
    values = [rng.randint(-500, 9500) / rng.choice((1, 10, 100)) for _ in range(rng.randint(4, 7))]
    numbers = [int(v) if v == int(v) else v for v in values]
    measure = rng.choice(("mean", "median", "variance", "range"))
    return Ask(
        f"compute the {measure} of the numbers {', '.join(map(str, numbers))}",
        {"numbers": numbers, "measure": measure},
    )


def _route(rng: Random) -> Ask:
    (start, end), mode = rng.sample(CITIES, 2), rng.choice(("car", "bicycle", "foot"))
    by = {"car": "by car", "bicycle": "by bicycle", "foot": "on foot"}[mode]
    arguments = {"start": start, "end": end, "mode": mode}
    clause = f"plan a route from {start} to {end} {by}"
    if rng.random() < 0.5:
        without = several(rng, ("tolls", "ferries", "tunnels"), 1, 2)
        return Ask(f"{clause} that avoids {joined(without)}", {**arguments, "avoid": without})
    return Ask(clause, arguments)


def _places(rng: Random) -> Ask:
    kind = rng.choice(("pharmacy", "bakery", "museum", "library", "playground"))
    latitude, longitude = rng.randint(-5500, 6500) / 100, rng.randint(-12000, 14000) / 100
    radius = rng.choice((0.5, 1.5, 2, 3, 5))
    plural = {"pharmacy": "pharmacies", "library": "libraries", "bakery": "bakeries"}.get(kind, f"{kind}s")
    arguments = {
        "category": kind,
        "near": {"latitude": latitude, "longitude": longitude},
        "radius_km": radius,
    }
    clause = f"find {plural} within {plain(radius)} km of latitude {latitude} and longitude {longitude}"
    if rng.random() < 0.5:
        return Ask(f"{clause} that are open now", {**arguments, "open_now": True})
    return Ask(clause, arguments)


def _books(rng: Random) -> Ask:
    genre = rng.choice(("crime", "poetry", "biography", "travel", "fantasy"))
    first = rng.randint(1900, 2000)
    last = first + rng.randint(3, 20)
    language = rng.choice(_LANGUAGES[1:])
    arguments = {"genre": genre, "published": {"from_year": first, "to_year": last}}
    clause = f"search the library for {genre} books published from {first} to {last}"
    if rng.random() < 0.5:
        return Ask(f"{clause} in {language.capitalize()}", {**arguments, "language": language})
    return Ask(clause, arguments)


def _issue(rng: Random) -> Ask:
    place = rng.choice(("backend", "website", "mobile-app", "docs"))
    title = rng.choice(
        (
            "Login page shows an empty error", "Dates are one day off", "Search is slow with umlauts",
            "Export drops the last row", "Dark mode hides the menu", "Broken link in the guide",
        )
    )  # fmt: skip
    labels = several(rng, ("bug", "urgent", "ui", "performance", "good first issue"), 1, 2)
    arguments = {"repository": place, "title": title, "labels": labels}
    said = f"label {labels[0]}" if len(labels) == 1 else f"labels {joined(labels)}"
    clause = f'open an issue in the repository {place} titled "{title}" with the {said}'
    if rng.random() < 0.5:
        who = rng.choice(FIRST_NAMES).lower()
        return Ask(f"{clause}, assigned to {who}", {**arguments, "assignee": who})
    return Ask(clause, arguments)


def _image(rng: Random) -> Ask:
    file = f"{rng.choice(('beach', 'logo', 'team', 'map', 'cover'))}_{rng.randint(1, 99)}.png"
    width, height = rng.randrange(100, 2000, 20), rng.randrange(100, 2000, 20)
    arguments = {"file": file, "width": width, "height": height}
    clause = f"resize {file} to {width} by {height} pixels"
    if rng.random() < 0.4:
        arguments["keep_ratio"] = False
        clause += " without keeping the aspect ratio"
    if rng.random() < 0.4:
        arguments["format"] = kind = rng.choice(("jpeg", "webp"))
        clause += f" and save it as {kind.upper()}"
    return Ask(clause, arguments)


def _leave(rng: Random) -> Ask:
    first, kind, who = day(rng, 600), rng.choice(("vacation", "parental", "unpaid", "training")), person(rng)
    last = first.fromordinal(first.toordinal() + rng.randint(1, 20))
    arguments = {
        "employee": who,
        "kind": kind,
        "first_day": first.isoformat(),
        "last_day": last.isoformat(),
    }
    clause = f"enter {kind} leave for {who} from {said_day(rng, first)} to {said_day(rng, last)}"
    if rng.random() < 0.4:
        substitute = person(rng)
        return Ask(f"{clause}, with {substitute} as the substitute", {**arguments, "substitute": substitute})
    return Ask(clause, arguments)


def _irrigation(rng: Random) -> Ask:
    zones = sorted(rng.sample(range(1, 9), rng.randint(1, 3)))
    days = [WEEKDAYS[n] for n in sorted(rng.sample(range(7), rng.randint(1, 3)))]
    (time, said), minutes = clock(rng, 5, 10), rng.randint(4, 40)
    zone = f"zone {zones[0]}" if len(zones) == 1 else f"zones {joined([str(z) for z in zones])}"
    named = joined([f"{one.capitalize()}s" for one in days])
    arguments = {"zones": zones, "weekdays": days, "start": time, "minutes": minutes}
    clause = f"water {zone} of the garden on {named} at {said} for {minutes} minutes"
    if rng.random() < 0.5:
        return Ask(f"{clause}, even when it rains", {**arguments, "skip_when_raining": False})
    return Ask(clause, arguments)


def _charge(rng: Random) -> Ask:
    percent, (time, said) = rng.randrange(50, 101, 5), clock(rng, 5, 12)
    arguments = {"target_percent": percent, "ready_by": time}
    clause = f"charge the car to {percent} percent by {said}"
    if rng.random() < 0.5:
        power = rng.choice((3.7, 7.4, 22))
        return Ask(f"{clause} with at most {plain(power)} kW", {**arguments, "max_power_kw": power})
    return Ask(clause, arguments)


TOOLS = (
    Tool(
        "get_weather",
        "weather",
        "Get the weather forecast of a city for one day.",
        {
            "city": text("Name of the city."),
            "date": text(f"The day, {ISO_DATE}."),
            "unit": one_of(("celsius", "fahrenheit"), "Unit of temperatures.", default="celsius"),
        },
        _weather,
    ),
    Tool(
        "search_flights",
        "travel",
        "Search for flights between two cities on a day.",
        {
            "origin": text("City of departure."),
            "destination": text("City of arrival."),
            "date": text(f"Day of departure, {ISO_DATE}."),
            "passengers": whole("How many people fly.", minimum=1, default=1),
            "cabin": one_of(_CABINS, "Class of travel.", default="economy"),
            "direct_only": flag("Whether to leave out flights with stops.", default=False),
        },
        _flights,
    ),
    Tool(
        "book_hotel",
        "travel",
        "Book a hotel room.",
        {
            "city": text("City of the hotel."),
            "check_in": text(f"Day of arrival, {ISO_DATE}."),
            "nights": whole("How many nights.", minimum=1),
            "guests": whole("How many guests.", minimum=1),
            "breakfast": flag("Whether breakfast is included.", default=False),
        },
        _hotel,
    ),
    Tool(
        "reserve_table",
        "food",
        "Reserve a table at a restaurant.",
        {
            "restaurant": text("Name of the restaurant."),
            "date": text(f"The day, {ISO_DATE}."),
            "time": text(f"Time of arrival, {CLOCK}."),
            "party_size": whole("How many people.", minimum=1),
            "outdoors": flag("Whether the table is to be outdoors.", default=False),
        },
        _table,
    ),
    Tool(
        "order_food",
        "food",
        "Order dishes from a restaurant.",
        {
            "restaurant": text("Name of the restaurant."),
            "items": list_of(
                record({"dish": text("Name of the dish."), "quantity": whole("How many.", minimum=1)}),
                "What is ordered, in the order it was named.",
                minItems=1,
            ),
            "pickup": flag("True to pick it up, false for delivery.", default=False),
        },
        _order_food,
    ),
    Tool(
        "transfer_money",
        "finance",
        "Transfer money from one of the user's accounts to somebody.",
        {
            "from_account": one_of(("checking", "savings"), "Account to take it from."),
            "recipient": text("Full name of the recipient."),
            "amount": number("How much.", exclusiveMinimum=0),
            "currency": one_of(_CURRENCIES[:4], "Currency, by its code."),
            "note": text("Note for the recipient.", default=""),
        },
        _transfer,
    ),
    Tool(
        "convert_currency",
        "finance",
        "Convert an amount of money from one currency into another at today's rate.",
        {
            "amount": number("How much."),
            "source": one_of(_CURRENCIES, "Currency of the amount."),
            "target": one_of(_CURRENCIES, "Currency to convert into."),
        },
        _currency,
    ),
    Tool(
        "compute_loan_payment",
        "finance",
        "Compute the regular payment of a loan.",
        {
            "principal": number("Amount of the loan."),
            "annual_rate_percent": number("Interest a year, in percent: 3.5 for 3.5 %."),
            "years": whole("How long the loan runs."),
            "payments_per_year": whole("How many payments a year.", default=12),
        },
        _loan,
    ),
    Tool(
        "create_event",
        "calendar",
        "Create an event in the user's calendar.",
        {
            "title": text("Title of the event."),
            "date": text(f"The day, {ISO_DATE}."),
            "start": text(f"When it starts, {CLOCK}."),
            "duration_minutes": whole("How long it takes.", minimum=1),
            "attendees": list_of(text("An e-mail address."), "Who is invited.", default=[]),
        },
        _event,
    ),
    Tool(
        "set_timer",
        "calendar",
        "Start a countdown on the user's device.",
        {
            "label": text("What the timer is called."),
            "minutes": whole("Minutes to count down.", minimum=0),
            "seconds": whole("Seconds besides the minutes.", minimum=0, maximum=59, default=0),
        },
        _timer,
    ),
    Tool(
        "set_thermostat",
        "home",
        "Set the temperature that a room is to have.",
        {
            "room": one_of(_ROOMS, "Which room."),
            "temperature": number("Degrees Celsius."),
            "mode": one_of(("heat", "cool", "auto"), "How to reach it.", default="auto"),
        },
        _thermostat,
    ),
    Tool(
        "switch_lights",
        "home",
        "Switch the lights of rooms on or off.",
        {
            "rooms": list_of({"type": "string", "enum": list(_ROOMS)}, "Which rooms.", minItems=1),
            "on": flag("True to switch on, false to switch off."),
            "brightness": whole("Brightness in percent.", minimum=1, maximum=100, default=100),
        },
        _lights,
    ),
    Tool(
        "start_vacuum",
        "home",
        "Schedule the vacuum robot for today.",
        {
            "rooms": list_of({"type": "string", "enum": list(_ROOMS)}, "Rooms to clean.", minItems=1),
            "start": text(f"When to start, {CLOCK}."),
            "quiet": flag("Whether to clean quietly.", default=False),
        },
        _vacuum,
    ),
    Tool(
        "create_playlist",
        "music",
        "Create a playlist of songs.",
        {
            "name": text("Name of the playlist."),
            "songs": list_of(
                record({"title": text("Title of the song."), "artist": text("Who plays it.")}),
                "The songs, in the order they were named.",
            ),
            "public": flag("Whether others can see it.", default=False),
        },
        _playlist,
    ),
    Tool(
        "set_volume",
        "music",
        "Set the volume of a speaker.",
        {
            "speaker": one_of(_ROOMS, "Room in which the speaker stands."),
            "level": whole("Volume.", minimum=0, maximum=100),
        },
        _volume,
    ),
    Tool(
        "add_to_cart",
        "shop",
        "Put products into the user's shopping cart.",
        {
            "items": list_of(
                record({"product": text("Name of the product."), "quantity": whole("How many.", minimum=1)}),
                "The products, in the order they were named.",
                minItems=1,
            ),
            "gift_wrap": flag("Whether to wrap them as gifts.", default=False),
        },
        _cart,
    ),
    Tool(
        "track_parcel",
        "shop",
        "Find out where a parcel is.",
        {
            "tracking_number": text("Number of the parcel."),
            "carrier": one_of(("postnord", "dhl", "ups", "gls"), "Who delivers it."),
        },
        _parcel,
    ),
    Tool(
        "create_discount",
        "merchant",
        "Create a discount code for customers of a web shop.",
        {
            "code": text("The code."),
            "percent": number("Percent off the price.", minimum=0, maximum=100),
            "valid_until": text(f"Last day it is valid, {ISO_DATE}."),
            "categories": list_of(
                {"type": "string", "enum": ["books", "garden", "kitchen", "toys", "sports"]},
                "Categories it is for; an empty list for all.",
                default=[],
            ),
        },
        _discount,
    ),
    Tool(
        "list_orders",
        "merchant",
        "List orders of a customer of a web shop.",
        {
            "customer_id": whole("Number of the customer."),
            "status": one_of(("open", "shipped", "returned", "cancelled"), "State of the orders."),
            "limit": whole("Most orders to list.", minimum=1, default=20),
        },
        _orders,
    ),
    Tool(
        "update_address",
        "merchant",
        "Change the postal address of a customer of a web shop.",
        {
            "customer_id": whole("Number of the customer."),
            "address": record(
                {
                    "street": text("Name of the street, without the number."),
                    "house_number": whole("Number of the house."),
                    "postal_code": text("Postal code."),
                    "city": text("Name of the city."),
                },
                "The new address.",
            ),
        },
        _move,
    ),
    Tool(
        "log_workout",
        "health",
        "Note a workout in the user's diary.",
        {
            "activity": one_of(("running", "cycling", "swimming", "rowing", "hiking"), "What was done."),
            "minutes": whole("How long.", minimum=1),
            "distance_km": {
                "type": ["number", "null"],
                "description": "How far, in kilometres; null where it was not measured.",
                "default": None,
            },
        },
        _workout,
    ),
    Tool(
        "log_blood_pressure",
        "health",
        "Note a measurement of blood pressure in the user's diary.",
        {
            "systolic": whole("The upper value."),
            "diastolic": whole("The lower value."),
            "pulse": {
                "type": ["integer", "null"],
                "description": "Beats per minute; null where they were not measured.",
                "default": None,
            },
        },
        _pressure,
    ),
    Tool(
        "send_email",
        "mail",
        "Send an e-mail.",
        {
            "to": list_of(text("An e-mail address."), "Who gets it, in the order named.", minItems=1),
            "subject": text("The subject."),
            "body": text("The text."),
            "priority": one_of(("low", "normal", "high"), "How urgent it is.", default="normal"),
        },
        _mail,
    ),
    Tool(
        "translate_text",
        "language",
        "Translate a text.",
        {
            "text": text("What to translate."),
            "source": one_of(_LANGUAGES, "Language of the text."),
            "target": one_of(_LANGUAGES, "Language to translate into."),
        },
        _translate,
    ),
    Tool(
        "solve_quadratic",
        "maths",
        "Solve a x^2 + b x + c = 0.",
        {
            "a": number("Coefficient of the square."),
            "b": number("Coefficient of x."),
            "c": number("The constant."),
            "complex_roots": flag("Whether to give complex roots as well.", default=False),
        },
        _quadratic,
    ),
    Tool(
        "compute_statistics",
        "maths",
        "Compute a statistic of numbers.",
        {
            "numbers": list_of({"type": "number"}, "The numbers, in the order named.", minItems=1),
            "measure": one_of(("mean", "median", "variance", "range"), "Which statistic."),
        },
        _statistics,
    ),
    Tool(
        "plan_route",
        "maps",
        "Plan a route between two places.",
        {
            "start": text("Where to start."),
            "end": text("Where to arrive."),
            "mode": one_of(("car", "bicycle", "foot"), "How to travel."),
            "avoid": list_of(
                {"type": "string", "enum": ["tolls", "ferries", "tunnels"]},
                "What to avoid, in the order named.",
                default=[],
            ),
        },
        _route,
    ),
    Tool(
        "find_places",
        "maps",
        "Find places of a kind around a point.",
        {
            "category": one_of(("pharmacy", "bakery", "museum", "library", "playground"), "Kind of place."),
            "near": record(
                {"latitude": number("Degrees north."), "longitude": number("Degrees east.")},
                "The point to search around.",
            ),
            "radius_km": number("How far from it.", exclusiveMinimum=0),
            "open_now": flag("Whether to leave out what is closed.", default=False),
        },
        _places,
    ),
    Tool(
        "search_books",
        "library",
        "Search for books in the library.",
        {
            "genre": one_of(("crime", "poetry", "biography", "travel", "fantasy"), "Kind of book."),
            "published": record(
                {"from_year": whole("First year."), "to_year": whole("Last year.")}, "When it was published."
            ),
            "language": one_of(_LANGUAGES, "Language of the book.", default="english"),
        },
        _books,
    ),
    Tool(
        "open_issue",
        "development",
        "Open an issue in a software repository.",
        {
            "repository": one_of(("backend", "website", "mobile-app", "docs"), "Which repository."),
            "title": text("Title of the issue."),
            "labels": list_of(text("A label."), "Labels, in the order named."),
            "assignee": text("Who is to take care of it, in lower case; empty for nobody.", default=""),
        },
        _issue,
    ),
    Tool(
        "resize_image",
        "pictures",
        "Resize a picture.",
        {
            "file": text("Name of the file."),
            "width": whole("Pixels.", minimum=1),
            "height": whole("Pixels.", minimum=1),
            "keep_ratio": flag("Whether to keep its proportions.", default=True),
            "format": one_of(("png", "jpeg", "webp"), "Format of the result.", default="png"),
        },
        _image,
    ),
    Tool(
        "request_leave",
        "personnel",
        "Enter an employee's leave.",
        {
            "employee": text("Full name of the employee."),
            "kind": one_of(("vacation", "parental", "unpaid", "training"), "Kind of leave."),
            "first_day": text(f"First day of leave, {ISO_DATE}."),
            "last_day": text(f"Last day of leave, {ISO_DATE}."),
            "substitute": text("Full name of who stands in; empty for nobody.", default=""),
        },
        _leave,
    ),
    Tool(
        "schedule_irrigation",
        "garden",
        "Set when the garden is watered.",
        {
            "zones": list_of({"type": "integer", "minimum": 1}, "Zones of the garden, ascending."),
            "weekdays": list_of(
                {"type": "string", "enum": list(WEEKDAYS)}, "On which days, from Monday on.", minItems=1
            ),
            "start": text(f"When to start, {CLOCK}."),
            "minutes": whole("How long.", minimum=1),
            "skip_when_raining": flag("Whether to leave it out when it rains.", default=True),
        },
        _irrigation,
    ),
    Tool(
        "charge_car",
        "car",
        "Charge the electric car.",
        {
            "target_percent": whole("How full the battery is to be.", minimum=1, maximum=100),
            "ready_by": text(f"When it has to be ready, {CLOCK}."),
            "max_power_kw": number("Most power to charge with.", default=11),
        },
        _charge,
    ),
)
