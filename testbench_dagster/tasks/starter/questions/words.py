"""Vocabulary the question makers draw from. Order matters: reordering a list changes the generated data."""

from __future__ import annotations

NAMES = (
    "Ada", "Bela", "Cora", "Dario", "Edda", "Fritz", "Greta", "Hugo", "Ivo", "Jana", "Kemal", "Lena",
    "Marek", "Nora", "Oskar", "Petra", "Quirin", "Rosa", "Samir", "Tilda", "Umberto", "Vera", "Wanda",
    "Yusuf",
)  # fmt: skip

ROOMS = ("kitchen", "garden", "cellar", "attic", "office", "garage", "library", "bedroom")

OBJECTS = ("lamp", "key", "basket", "violin", "map", "umbrella", "bottle", "ladder", "candle", "clock")

FRUITS = ("apples", "pears", "plums", "cherries", "lemons", "figs", "melons", "grapes", "oranges", "peaches")

COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "purple")

WORDS = (
    "anchor", "bakery", "blanket", "bottle", "bridge", "bucket", "butter", "cabinet", "candle", "canyon",
    "carpet", "castle", "cellar", "chapter", "cheese", "cinema", "climate", "compass", "copper", "corner",
    "cotton", "cousin", "curtain", "danger", "desert", "dinner", "doctor", "dragon", "drawer", "engine",
    "falcon", "feather", "ferry", "finger", "forest", "fountain", "galaxy", "garden", "giant", "glacier",
    "hammer", "harbour", "helmet", "hotel", "island", "jacket", "jungle", "kettle", "kitchen", "ladder",
    "lantern", "lemon", "letter", "library", "magnet", "marble", "market", "meadow", "mirror", "monkey",
    "mountain", "museum", "needle", "number", "ocean", "orchard", "oyster", "paper", "parrot", "pebble",
    "pencil", "pepper", "pillow", "planet", "pocket", "potato", "puzzle", "rabbit", "ribbon", "river",
    "rocket", "saddle", "salmon", "school", "shadow", "silver", "spider", "spring", "station", "summer",
    "temple", "thunder", "ticket", "tiger", "timber", "tunnel", "turtle", "valley", "velvet", "village",
    "violin", "wagon", "walnut", "weather", "whistle", "window", "winter", "wizard", "yellow", "zebra",
)  # fmt: skip
