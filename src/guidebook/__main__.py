"""``python -m guidebook``: the command."""

from guidebook.cli import entry

if __name__ == "__main__":
    entry()
