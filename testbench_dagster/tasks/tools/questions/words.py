"""Names and values that requests are made of, and how they are said."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from random import Random

CITIES = (
    "Oslo", "Lisbon", "Turin", "Ghent", "Krakow", "Nairobi", "Osaka", "Lima", "Perth", "Quebec City",
    "Tallinn", "Hanoi", "Seville", "Graz", "Lyon", "Bergen", "Porto", "Izmir", "Cork", "Bologna", "Utrecht",
    "Malmo", "Valencia", "Austin", "Wellington", "Montevideo", "Casablanca", "Riga", "Dresden", "Nantes",
)  # fmt: skip
FIRST_NAMES = (
    "Amara", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaori", "Leila",
    "Mateo", "Nadia", "Olga", "Pavel", "Rosa", "Samir", "Tove", "Umberto", "Vera", "Wanda", "Yusuf", "Zoe",
)  # fmt: skip
LAST_NAMES = (
    "Abelsen", "Bianchi", "Costa", "Dvorak", "Eriksen", "Fontaine", "Garcia", "Haddad", "Ivanova", "Jansen",
    "Keller", "Lindqvist", "Moreau", "Novak", "Okafor", "Petrov", "Quist", "Rossi", "Sato", "Tanaka", "Ueda",
    "Vidal", "Weber", "Yilmaz",
)  # fmt: skip
RESTAURANTS = (
    "Casa Pilar", "The Copper Pot", "Trattoria Nino", "Blue Anchor", "Saffron House", "Chez Margot",
    "Old Mill",     "Kumo Ramen", "The Green Fork", "Taverna Elia", "Bistro Lune", "Harbour Grill",
)  # fmt: skip
STREETS = (
    "Mill Lane", "Station Road", "Elm Street", "Rue du Port", "Gartenweg", "Via Roma", "Harbour Street",
    "Church Road", "Linden Avenue", "Quay Street", "Calle Mayor", "Park Row",
)  # fmt: skip
COMPANIES = (
    "Norlight", "Fabrica Sol", "Hexon Labs", "Tidewater Foods", "Oakfield Press", "Kestrel Optics",
    "Blauwerk", "Montara Energy", "Pinecrest Tools", "Silverbrook Farms", "Arco Shipping", "Vela Textiles",
)  # fmt: skip
PRODUCTS = (
    "desk lamp", "wool blanket", "steel kettle", "bicycle pump", "rain jacket", "travel mug", "bread knife",
    "garden hose", "phone stand", "yoga mat", "picture frame", "tool box", "head torch", "storage crate",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ISO_DATE, CLOCK = "as YYYY-MM-DD", "as HH:MM on the 24-hour clock"

_FIRST_DAY = date(2026, 1, 5)


def day(rng: Random, within: int = 700) -> date:
    """A day in 2026 or 2027."""
    return _FIRST_DAY + timedelta(days=rng.randrange(within))


def said_day(rng: Random, when: date) -> str:
    """A day as people write it."""
    month = MONTHS[when.month - 1]
    return rng.choice(
        (
            f"{when.day} {month} {when.year}",
            f"{month} {when.day}, {when.year}",
            when.isoformat(),
            f"the {ordinal(when.day)} of {month} {when.year}",
        )
    )


def ordinal(n: int) -> str:
    """A number as a place in an order: 1st, 22nd, 13th."""
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def clock(rng: Random, first: int = 7, last: int = 21) -> tuple[str, str]:
    """A time of day as HH:MM, and as people write it."""
    hour, minute = rng.randint(first, last), rng.choice((0, 10, 15, 20, 30, 40, 45, 50))
    plain = f"{hour:02d}:{minute:02d}"
    half = f"{(hour - 1) % 12 + 1}:{minute:02d} {'am' if hour < 12 else 'pm'}"
    return plain, rng.choice((plain, half))


def person(rng: Random) -> str:
    """A full name."""
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def address(rng: Random) -> str:
    """An e-mail address at an example domain."""
    name = f"{rng.choice(FIRST_NAMES)}.{rng.choice(LAST_NAMES)}".lower()
    return f"{name}@example.{rng.choice(('com', 'org', 'net'))}"


def several(rng: Random, of: Sequence[str], least: int, most: int) -> list[str]:
    """Some different ones, in any order."""
    return rng.sample(of, rng.randint(least, most))


def joined(parts: Sequence[str]) -> str:
    """A list as a sentence has it."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def money(rng: Random, least: int, most: int) -> float:
    """An amount with cents."""
    return rng.randrange(least * 100, most * 100, 5) / 100


def plain(value: float) -> str:
    """A number without superfluous digits."""
    return f"{value:g}" if value == int(value) else f"{value:.2f}".rstrip("0")
