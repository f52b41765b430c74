"""A notebook for the terminal that learns to finish your notes the way you write them.

python notes.py add "Leak under the sink again, plumber Tuesday at 9"
python notes.py learn
python notes.py finish "Boiler"
"""

import getpass
import os
import sys
from pathlib import Path

from antefix.errors import AntefixError
from antefix_client import PersonalModel

FOLDER = Path(os.environ.get("NOTES", "~/.notes")).expanduser()
COMMANDS = ("add", "list", "drop", "learn", "finish")
BASE = os.environ.get("NOTES_BASE", "smollm2-135m-q4")


def passphrase() -> str:
    return os.environ.get("NOTES_PASSPHRASE") or getpass.getpass("passphrase: ")


def notebook() -> PersonalModel:
    """The notes are in the profile, sealed; this program keeps no file of its own."""
    if (FOLDER / "profile.json").exists():
        return PersonalModel.open(FOLDER, unlock=passphrase)
    return PersonalModel.create(FOLDER, base=BASE, unlock=passphrase)


def main(command: str, *words: str) -> None:
    if command not in COMMANDS:
        sys.exit(f"notes: unknown command {command}: {', '.join(COMMANDS)}")
    text = " ".join(words)
    with notebook() as model:
        if command == "add":
            model.remember([text])
        elif command == "list":
            for number, note in model.texts().items():
                print(f"{number:4}  {note.completion}")
        elif command == "drop":
            if not text.isdecimal() or int(text) not in model.texts():
                sys.exit(f"notes: there is no note {text}")
            model.remove_texts([int(text)])
        elif command == "learn":
            print(model.learn())
        else:
            print(text, end="", flush=True)
            for piece in model.stream(text, max_new_tokens=24, stop=("\n",)):
                print(piece, end="", flush=True)
            print()


if __name__ == "__main__":
    try:
        main(*(sys.argv[1:] or ["list"]))
    except (AntefixError, EOFError) as error:
        sys.exit(f"notes: {error}")
