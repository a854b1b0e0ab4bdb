"""docs/client.md says what the client does."""

import re
from pathlib import Path

from dataset_client.grammar import make_parser
from dataset_client.settings import DEFAULT_SERVER_URL, KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()


def rows(title):
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]


def test_every_setting_is_in_the_table():
    table = rows("Settings")[2:]
    assert {key.strip("`"): variable.strip("`") for key, variable, _, _ in table} == KEYS
    assert table[0][3] == f"`{DEFAULT_SERVER_URL}`"


def test_the_statuses_are_those_of_the_help():
    text = " ".join(make_parser(dict.fromkeys(COMMANDS)).format_help().split())
    for status, meaning in rows("For scripts")[2:]:
        assert f"{status} {meaning.replace('`', '')}" in text


COMMANDS = ["request", "pull", "watch", "ls", "show", "verify", "rm", "gc", "du", "completion"]


def test_every_command_is_shown():
    assert set(re.findall(r"^dataset-client (\w+)", PAGE, re.MULTILINE)) == set(COMMANDS)
