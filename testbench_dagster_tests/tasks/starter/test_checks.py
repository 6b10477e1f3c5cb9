"""Rules of `starter_instructions`: each one obeyed and broken."""

import json

import pytest

from testbench_dagster.tasks.starter.checks import follows, process_results, words


@pytest.mark.parametrize(
    ("rule", "obeys", "breaks"),
    [
        ({"kind": "word_count", "count": 4}, "It's a well-known fact.", "It is a well known fact."),
        ({"kind": "avoid_letter", "letter": "e"}, "A bird.", "A BEE"),
        ({"kind": "include_words", "words": ["red", "fox"]}, "Fox, RED.", "A reddish foxtail."),
        ({"kind": "repeat_word", "word": "old", "count": 2}, "Old, old, olden.", "Old."),
        ({"kind": "starts_with", "phrase": "In short"}, "in short: yes", "So, in short"),
        ({"kind": "ends_with", "phrase": "That is all."}, "Yes. That is all.\n", "That is all. Bye."),
        ({"kind": "json_list", "count": 2}, ' ["a", "b"] ', 'Sure: ["a", "b"]'),
        ({"kind": "json_list", "count": 1}, '["a"]', "[1]"),
        ({"kind": "json_list", "count": 1}, '["a"]', '{"a": 1}'),
        ({"kind": "json_list", "count": 1}, '["a"]', "[" * 100_000),
        ({"kind": "numbered_lines", "count": 2}, "1. a\n2. b", "1. a\n\n2. b"),
        ({"kind": "numbered_lines", "count": 2}, "1. a\n2. b", "2. a\n1. b"),
        ({"kind": "lower_case"}, "no capitals, 3", "One capital"),
        ({"kind": "upper_case"}, "SHOUT 3", "123"),
        ({"kind": "no_commas"}, "one and two", "one, two"),
    ],
)
def test_rule(rule, obeys, breaks):
    assert follows(obeys, [rule])
    assert not follows(breaks, [rule])


def test_every_rule_counts_and_silence_never_follows():
    rules = [{"kind": "no_commas"}, {"kind": "lower_case"}]
    assert follows("plain text", rules)
    assert not follows("Plain text", rules)
    assert not follows("  \n", [{"kind": "no_commas"}])


def test_words_keep_hyphens_and_apostrophes():
    assert words("Don't re-open — it's 3 o’clock_now") == ["Don't", "re-open", "it's", "3", "o’clock", "now"]


def test_hook_gives_the_metric():
    doc = {"rules": json.dumps([{"kind": "word_count", "count": 2}])}
    assert process_results(doc, ["two words"]) == {"follows": 1.0}
    assert process_results(doc, ["one"]) == {"follows": 0.0}
