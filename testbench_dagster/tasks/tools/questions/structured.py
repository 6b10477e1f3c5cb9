"""Short texts and the JSON that is to be read from them: the strict subset of JSON Schema that APIs take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from testbench_dagster.tasks.tools.questions import (
    Schema,
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
    COMPANIES,
    FIRST_NAMES,
    ISO_DATE,
    LAST_NAMES,
    PRODUCTS,
    STREETS,
    clock,
    day,
    joined,
    money,
    person,
    plain,
    said_day,
    several,
)


@dataclass(frozen=True)
class Form:
    """A form of answer, and a maker of texts with what is to be read from each."""

    name: str
    what: str
    schema: Schema
    make: Callable[[Random], tuple[str, Mapping[str, Any]]]


def _or_null(kind: str, description: str) -> Schema:
    return {"type": [kind, "null"], "description": description}


def _invoice(rng: Random) -> tuple[str, Mapping[str, Any]]:
    names = several(rng, PRODUCTS, 1, 3)
    lines: list[dict[str, Any]] = [
        {"item": n, "quantity": rng.randint(1, 20), "unit_price": money(rng, 2, 90)} for n in names
    ]
    total = round(sum(line["quantity"] * line["unit_price"] for line in lines), 2)
    issued, seller, currency = day(rng), rng.choice(COMPANIES), rng.choice(("EUR", "USD", "GBP"))
    identity = f"{rng.choice('ABCDEF')}-{rng.randint(1000, 99999)}"
    paid = rng.random() < 0.5
    said = joined(
        [f"{x['quantity']} x {x['item']} at {plain(x['unit_price'])} {currency} each" for x in lines]
    )
    story = (
        f"{seller} sent invoice {identity} on {said_day(rng, issued)}: {said}. That makes "
        f"{plain(total)} {currency}, "
        f"which {'has been paid' if paid else 'is still to be paid'}."
    )
    return story, {
        "number": identity,
        "seller": seller,
        "date": issued.isoformat(),
        "currency": currency,
        "lines": lines,
        "total": total,
        "paid": paid,
    }


def _profile(rng: Random) -> tuple[str, Mapping[str, Any]]:
    name, age, city = person(rng), rng.randint(21, 79), rng.choice(CITIES)
    work = rng.choice(("geologist", "tailor", "paramedic", "bookbinder", "violinist", "surveyor"))
    languages = several(rng, ("Polish", "English", "Swahili", "Greek", "Dutch", "Korean"), 1, 3)
    children = rng.randint(0, 4)
    family = (
        "has no children" if not children else f"has {children} {'child' if children == 1 else 'children'}"
    )
    retired = rng.random() < 0.3
    story = (
        f"{name} is {age}, lives in {city} and {'worked' if retired else 'works'} as a {work}"
        f"{', but is retired now' if retired else ''}. "
        f"{name.split()[0]} speaks {joined(languages)} and {family}."
    )
    return story, {
        "name": name,
        "age": age,
        "city": city,
        "profession": work,
        "languages": languages,
        "children": children,
        "retired": retired,
    }


def _concert(rng: Random) -> tuple[str, Mapping[str, Any]]:
    title = rng.choice(("Lantern Walk", "Winter Concert", "Seed Swap", "Open Studio Night", "Harbour Run"))
    when, (time, said), place = day(rng), clock(rng, 9, 20), rng.choice(STREETS)
    city = rng.choice(CITIES)
    price: float | None = rng.choice((None, 5, 7.5, 12, 18.5))
    limits = (40, 120, 300)
    limit: int | None = rng.choice(limits if price is None else (None, *limits))
    money_said = "Entry is free" if price is None else f"Tickets cost {plain(price)} euros"
    limit_said = (
        "there is no limit to the number of guests" if limit is None else f"there is room for {limit} guests"
    )
    story = (
        f"The {title} takes place on {said_day(rng, when)} in {place}, {city}, and begins at {said}. "
        f"{money_said}, "
        f"and {limit_said}."
    )
    return story, {
        "title": title,
        "date": when.isoformat(),
        "start": time,
        "place": {"street": place, "city": city},
        "price": price,
        "capacity": limit,
    }


def _recipe(rng: Random) -> tuple[str, Mapping[str, Any]]:
    name = rng.choice(("Lentil stew", "Plum cake", "Barley salad", "Pumpkin bake", "Herb omelette"))
    stock = (
        ("flour", "g"),
        ("milk", "ml"),
        ("butter", "g"),
        ("lentils", "g"),
        ("stock", "ml"),
        ("eggs", "piece"),
    )
    chosen = rng.sample(stock, rng.randint(2, 4))
    parts = [
        {"name": n, "amount": rng.randint(2, 6) if u == "piece" else rng.randrange(50, 900, 25), "unit": u}
        for n, u in chosen
    ]
    servings, minutes = rng.randint(2, 8), rng.randrange(15, 120, 5)
    said = joined(
        [
            f"{p['amount']} {p['name']}"
            if p["unit"] == "piece"
            else f"{p['amount']} {p['unit']} of {p['name']}"
            for p in parts
        ]
    )
    story = f"{name} for {servings} people takes {minutes} minutes. You need {said}."
    return story, {"name": name, "servings": servings, "minutes": minutes, "ingredients": parts}


def _review(rng: Random) -> tuple[str, Mapping[str, Any]]:
    product, stars = rng.choice(PRODUCTS), rng.randint(1, 5)
    faults = rng.sample(
        ("too heavy", "bad smell", "missing screws", "thin fabric", "loud"), rng.randint(0, 3)
    )
    again, buyer = rng.random() < 0.5, rng.choice(FIRST_NAMES)
    complaint = f"Complaints: {', '.join(faults)}" if faults else "There were no complaints"
    story = (
        f"{buyer} gave the {product} {stars} out of 5 stars. {complaint}. {buyer} "
        f"{'would' if again else 'would not'} buy it again."
    )
    return story, {
        "product": product,
        "reviewer": buyer,
        "stars": stars,
        "complaints": faults,
        "would_buy_again": again,
    }


def _forecast(rng: Random) -> tuple[str, Mapping[str, Any]]:
    city, when, low = rng.choice(CITIES), day(rng), rng.randint(-15, 18)
    high, sky = low + rng.randint(1, 12), rng.choice(("sunny", "cloudy", "rainy", "snowy"))
    speed, direction = rng.randint(3, 70), rng.choice(("north", "east", "south", "west"))
    story = (
        f"{city} on {said_day(rng, when)}: {sky}, between {low} and {high} degrees, wind from the "
        f"{direction} at "
        f"{speed} km/h."
    )
    return story, {
        "city": city,
        "date": when.isoformat(),
        "sky": sky,
        "temperature": {"low": low, "high": high},
        "wind": {"speed_kmh": speed, "direction": direction},
    }


def _vacancy(rng: Random) -> tuple[str, Mapping[str, Any]]:
    title = rng.choice(("Warehouse planner", "Data engineer", "Pastry chef", "Tram driver", "Archivist"))
    company, city = rng.choice(COMPANIES), rng.choice(CITIES)
    least = rng.randrange(24, 70) * 1000
    most, hours = least + rng.randrange(2, 20) * 1000, rng.choice((20, 25, 30, 36, 38.5, 40))
    remote = rng.choice(("none", "partly", "fully"))
    told = {"none": "on site", "partly": "partly from home", "fully": "entirely from home"}[remote]
    story = (
        f"{company} in {city} is looking for a {title.lower()} who works {told}, {plain(hours)} hours a "
        f"week, for "
        f"{least} to {most} euros a year."
    )
    return story, {
        "title": title,
        "company": company,
        "city": city,
        "remote": remote,
        "hours_per_week": hours,
        "salary": {"minimum": least, "maximum": most},
    }


def _match(rng: Random) -> tuple[str, Mapping[str, Any]]:
    home, away = rng.sample(CITIES, 2)
    minutes = sorted(rng.sample(range(2, 90), rng.randint(0, 4)))
    goals = [
        {"minute": minute, "player": rng.choice(LAST_NAMES), "team": rng.choice(("home", "away"))}
        for minute in minutes
    ]
    score = {side: sum(goal["team"] == side for goal in goals) for side in ("home", "away")}
    crowd = rng.randint(300, 48000)
    names = {"home": home, "away": away}
    told = " ".join(
        f"{g['player']} scored for {names[str(g['team'])]} in minute {g['minute']}." for g in goals
    )
    story = (
        f"{home} received {away} before {crowd} spectators; the match ended {score['home']} to "
        f"{score['away']}."
        f"{' ' + told if told else ' Nobody scored.'}"
    )
    return story, {
        "home_team": home,
        "away_team": away,
        "home_goals": score["home"],
        "away_goals": score["away"],
        "goals": goals,
        "spectators": crowd,
    }


def _flat(rng: Random) -> tuple[str, Mapping[str, Any]]:
    kind, rooms, area = (
        rng.choice(("flat", "house", "studio")),
        rng.randint(1, 6),
        rng.randint(200, 1800) / 10,
    )
    rent, city, free = rng.randrange(350, 2900, 10), rng.choice(CITIES), day(rng)
    floor: int | None = None if kind == "house" else rng.randint(1, 9)
    extras = rng.sample(("balcony", "garage", "cellar", "lift"), rng.randint(0, 3))
    level = "" if floor is None else f" on floor {floor}"
    has = f"It has: {', '.join(extras)}" if extras else "It has no extras"
    story = (
        f"To let in {city}: {kind}{level}, {rooms} {'room' if rooms == 1 else 'rooms'}, {plain(area)} "
        f"square metres, "
        f"{rent} euros a month, free from {said_day(rng, free)}. {has}."
    )
    return story, {
        "kind": kind,
        "city": city,
        "rooms": rooms,
        "area_m2": area,
        "floor": floor,
        "rent": rent,
        "available_from": free.isoformat(),
        "extras": extras,
    }


def _shipment(rng: Random) -> tuple[str, Mapping[str, Any]]:
    code, weight = f"SH{rng.randint(10000, 99999)}", rng.randint(5, 900) / 10
    size = {side: rng.randint(10, 200) for side in ("length_cm", "width_cm", "height_cm")}
    stops, fragile = several(rng, CITIES, 2, 4), rng.random() < 0.5
    dimensions = " x ".join(str(value) for value in size.values())
    story = (
        f"Shipment {code} weighs {plain(weight)} kg and measures {dimensions} cm (length, width, "
        f"height). It goes from "
        f"{' via '.join([stops[0], *stops[1:-1]])} to {stops[-1]} and is "
        f"{'fragile' if fragile else 'not fragile'}."
    )
    return story, {
        "code": code,
        "weight_kg": weight,
        "size": size,
        "stops": stops,
        "fragile": fragile,
    }


FORMS = (
    Form(
        "invoice",
        "the invoice",
        record(
            {
                "number": text("Number of the invoice."),
                "seller": text("Who sent it."),
                "date": text(f"When it was sent, {ISO_DATE}."),
                "currency": one_of(("EUR", "USD", "GBP"), "Currency of all amounts."),
                "lines": list_of(
                    record(
                        {
                            "item": text("What was sold."),
                            "quantity": whole("How many."),
                            "unit_price": number("Price of one."),
                        }
                    ),
                    "What was sold, in the order of the text.",
                ),
                "total": number("What all of it costs."),
                "paid": flag("Whether it has been paid."),
            }
        ),
        _invoice,
    ),
    Form(
        "profile",
        "the person",
        record(
            {
                "name": text("Full name."),
                "age": whole("Age in years."),
                "city": text("Where the person lives."),
                "profession": text("Present or former profession, as the text has it."),
                "languages": list_of(text("A language."), "Languages, in the order of the text."),
                "children": whole("How many children."),
                "retired": flag("Whether the person is retired."),
            }
        ),
        _profile,
    ),
    Form(
        "announcement",
        "the announcement",
        record(
            {
                "title": text("What it is called, without an article."),
                "date": text(f"The day, {ISO_DATE}."),
                "start": text(f"When it begins, {CLOCK}."),
                "place": record({"street": text("The street."), "city": text("The city.")}),
                "price": _or_null("number", "Price of a ticket in euros; null where entry is free."),
                "capacity": _or_null("integer", "How many guests there is room for; null without a limit."),
            }
        ),
        _concert,
    ),
    Form(
        "recipe",
        "the recipe",
        record(
            {
                "name": text("Name of the dish."),
                "servings": whole("For how many people."),
                "minutes": whole("How long it takes."),
                "ingredients": list_of(
                    record(
                        {
                            "name": text("The ingredient."),
                            "amount": number("How much."),
                            "unit": one_of(("g", "ml", "piece"), "Unit; piece where things are counted."),
                        }
                    ),
                    "Ingredients, in the order of the text.",
                ),
            }
        ),
        _recipe,
    ),
    Form(
        "review",
        "the review",
        record(
            {
                "product": text("What was reviewed."),
                "reviewer": text("Who reviewed it."),
                "stars": whole("Stars given, from 1 to 5."),
                "complaints": list_of(text("As the text has it."), "Complaints, in the order of the text."),
                "would_buy_again": flag("Whether the reviewer would buy it again."),
            }
        ),
        _review,
    ),
    Form(
        "forecast",
        "the forecast",
        record(
            {
                "city": text("The city."),
                "date": text(f"The day, {ISO_DATE}."),
                "sky": one_of(("sunny", "cloudy", "rainy", "snowy"), "What the sky is like."),
                "temperature": record(
                    {"low": whole("Lowest, in degrees."), "high": whole("Highest, in degrees.")}
                ),
                "wind": record(
                    {
                        "speed_kmh": whole("Speed in km/h."),
                        "direction": one_of(("north", "east", "south", "west"), "Where it comes from."),
                    }
                ),
            }
        ),
        _forecast,
    ),
    Form(
        "vacancy",
        "the vacancy",
        record(
            {
                "title": text("What the job is called, without an article."),
                "company": text("Who offers it."),
                "city": text("Where the company is."),
                "remote": one_of(("none", "partly", "fully"), "How much of the work is done from home."),
                "hours_per_week": number("Hours a week."),
                "salary": record({"minimum": whole("Euros a year."), "maximum": whole("Euros a year.")}),
            }
        ),
        _vacancy,
    ),
    Form(
        "match",
        "the match",
        record(
            {
                "home_team": text("The team that received the other."),
                "away_team": text("The other team."),
                "home_goals": whole("Goals of the home team."),
                "away_goals": whole("Goals of the other team."),
                "goals": list_of(
                    record(
                        {
                            "minute": whole("In which minute."),
                            "player": text("Who scored."),
                            "team": one_of(("home", "away"), "For which team."),
                        }
                    ),
                    "The goals, in the order of the text.",
                ),
                "spectators": whole("How many spectators."),
            }
        ),
        _match,
    ),
    Form(
        "dwelling",
        "the offer",
        record(
            {
                "kind": one_of(("flat", "house", "studio"), "Kind of dwelling."),
                "city": text("The city."),
                "rooms": whole("How many rooms."),
                "area_m2": number("Area in square metres."),
                "floor": _or_null("integer", "The floor; null where the text names none."),
                "rent": whole("Euros a month."),
                "available_from": text(f"From when it is free, {ISO_DATE}."),
                "extras": list_of(
                    one_of(("balcony", "garage", "cellar", "lift"), "An extra."),
                    "Extras, in the order of the text.",
                ),
            }
        ),
        _flat,
    ),
    Form(
        "shipment",
        "the shipment",
        record(
            {
                "code": text("Its code."),
                "weight_kg": number("Weight in kilograms."),
                "size": record(
                    {
                        "length_cm": whole("Length in cm."),
                        "width_cm": whole("Width in cm."),
                        "height_cm": whole("Height in cm."),
                    }
                ),
                "stops": list_of(
                    text("A city."), "All places from the first to the last, in the order passed."
                ),
                "fragile": flag("Whether it is fragile."),
            }
        ),
        _shipment,
    ),
)
