"""`antefix init`, `remember`, `learn`, `status`, `versions`, `roll-back`, `export`, `unlock`, `forget`."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antefix.common.cli import strip_control_chars
from antefix_client.cli.options import (
    HOME,
    AsJson,
    Device,
    Dtype,
    Folder,
    KeyFile,
    NewFile,
    NewKeyFile,
    Split,
    TextFile,
    UseKeyring,
    Yes,
)
from antefix_client.cli.unlocking import (
    ask_passphrase,
    check_base,
    confirm,
    create_key,
    find_unlock,
    open_model,
    require_outside,
)

if TYPE_CHECKING:
    from antefix_client.profile.unlock_slots import Unlock
    from antefix_client.profile.version_history import Version


class What(StrEnum):
    """What can be exported."""

    prefix = "prefix"
    peft = "peft"
    record = "record"
    texts = "texts"


def register(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    for command in (
        init,
        remember,
        learn,
        status,
        versions,
        roll_back,
        export,
        rescue,
        unlock,
        change_base,
        forget,
    ):
        app.command()(command)


def init(
    base: Annotated[
        str, typer.Option(envvar="ANTEFIX_BASE", help="Base: a name, a folder or a hub id.")
    ] = "smollm2-135m-q4",
    folder: Folder = HOME,
    key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="ANTEFIX_KEY_FILE", help="Make a key in this file and unlock with it.", show_default="ask"
        ),
    ] = None,
    keyring: UseKeyring = False,
) -> None:
    """Make a profile. Asks for a passphrase unless a key file or the keyring unlocks it."""
    from antefix_client import PersonalModel

    folder = folder.expanduser()
    check_base(base)
    with PersonalModel.create(folder, base=base, unlock=_new_unlock(folder, key_file, keyring)):
        typer.echo(f"made {folder}")
    typer.echo("antefix: whoever loses what unlocks it loses the profile; nobody else has it", err=True)


def remember(
    file: TextFile,
    split: Split = None,
    newest: Annotated[bool, typer.Option("--newest", help="Of too many texts take the last ones.")] = False,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Keep texts to learn from. A text that is kept already is not kept twice."""
    from antefix_client.cli.text_files import read_texts

    texts = read_texts(file, split, newest)
    with open_model(folder, key_file) as model:
        count, total = model.remember(text for _, text in texts), len(model.texts())
    _say(as_json, {"new": count, "texts": total}, f"{count:,} new texts, {total:,} in all")


def learn(
    seconds: Annotated[
        float | None, typer.Option(help="Train so long at most.", show_default="as needed")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Train on so many tokens at most.", show_default="as needed")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(help="Take so many MB at most, about.", show_default="as needed")
    ] = None,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    device: Device = "cpu",
    dtype: Dtype = "fp32",
    as_json: AsJson = False,
) -> None:
    """Train a new version, and keep it if it predicts texts better that it was not trained on.

    Interrupted with Ctrl-C, the next call goes on where it was.
    """
    from antefix_client import Budget

    budget = Budget(seconds=seconds, tokens=tokens, memory_mb=memory)
    with open_model(folder, key_file, device, dtype) as model:
        report = model.learn(budget=budget)
    _say(as_json, asdict(report), str(report))


def status(folder: Folder = HOME, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """Say what is in a profile."""
    with open_model(folder, key_file) as model:
        state = model.status()
    facts = {**asdict(state), "folder": str(state.folder)}
    lines = [f"{name:12} {_shown(value)}" for name, value in facts.items()]
    _say(as_json, facts, "\n".join(lines))


def versions(folder: Folder = HOME, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List what was learned; the last version that is not beside another is in use."""
    with open_model(folder, key_file) as model:
        listed = model.versions()
    rows = [json.loads(version.model_dump_json()) for version in listed]
    lines = [_version_line(version) for version in listed]
    _say(as_json, rows, "\n".join(lines) or "nothing was learned yet")


def roll_back(
    version: Annotated[
        str | None,
        typer.Argument(
            help="Number; where two have it, with the digits that versions shows: 3-1a2b3c4d.",
            show_default="the one before",
        ),
    ] = None,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Use an older version again, or choose in a conflict; it becomes the newest."""
    with open_model(folder, key_file, device) as model:
        sealed = model.roll_back(version)
    _say(
        as_json, json.loads(sealed.model_dump_json()), f"version {sealed.number} is version {sealed.of} again"
    )


def export(
    path: Annotated[Path, typer.Argument(help="New file, or folder.", show_default=False)],
    what: Annotated[
        What, typer.Option(help="What to write; all but a record is in the clear.")
    ] = What.prefix,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Write prefix, PEFT adapter, sealed record or texts to a new path."""
    with open_model(folder, key_file) as model:
        typer.echo(f"wrote {model.export(path, what=what.value)}")
    if what is not What.record:
        typer.echo("antefix: it is in the clear", err=True)


def rescue(
    path: NewFile,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Save the texts of a profile that does not open any more, in the clear, as JSON lines."""
    from antefix.common.files import ensure_absent
    from antefix_client import PersonalModel
    from antefix_client.inference.export import to_json_lines
    from antefix_client.profile.os_errors import write_new

    ensure_absent(path)
    folder = folder.expanduser()
    texts = PersonalModel.rescue(folder, unlock=find_unlock(folder, key_file))
    write_new(path, to_json_lines(texts))
    typer.echo(f"{len(texts):,} texts in {path}")


def unlock(
    new_key_file: NewKeyFile = None,
    keyring: UseKeyring = False,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Change what unlocks a profile: a new passphrase, a key file, or the keyring."""
    new = _new_unlock(folder, new_key_file, keyring, variable="ANTEFIX_NEW_PASSPHRASE")
    with open_model(folder, key_file) as model:
        model.change_unlock(new)
    typer.echo("changed")


def change_base(
    base: Annotated[str, typer.Argument(help="A name, a folder or a hub id.", show_default=False)],
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Go over to another base. Texts stay; what was learned on the old one waits until it is back."""
    check_base(base)
    with open_model(folder, key_file) as model:
        model.change_base(base)
    typer.echo("changed; learn again")


def forget(
    yes: Yes = False,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Destroy a profile: keys, texts, versions. There is no way back."""
    with open_model(folder, key_file) as model:
        if not yes:
            confirm(f"destroy {folder.expanduser()} with {len(model.texts()):,} texts?")
        model.forget()
    typer.echo("destroyed")


def _new_unlock(
    folder: Path, key_file: Path | None, keyring: bool, variable: str = "ANTEFIX_PASSPHRASE"
) -> Unlock:
    if keyring:
        from antefix_client import Keyring

        return Keyring()
    if key_file is not None:
        require_outside(folder, key_file)
    # Asked for and made when it is needed: what is refused before asks nobody and leaves no key behind.
    return lambda: ask_passphrase(new=True, variable=variable) if key_file is None else create_key(key_file)


def _version_line(version: Version) -> str:
    again = f" of {version.of}" if version.of else ""
    losses = ""
    if version.loss_after is not None:
        losses = f"  {version.loss_before:.2f} → {version.loss_after:.2f} nats/token"
    conflict = f"  (beside: {version.name})" if version.beside else ""
    return f"{version.number:4}  {version.made:%Y-%m-%d %H:%M}  {version.how}{again}{losses}{conflict}"


def _say(as_json: bool, facts: Any, text: str) -> None:
    typer.echo(json.dumps(facts, indent=2) if as_json else text)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return strip_control_chars("; ".join(map(str, value))) or "nothing"
    if value is None or isinstance(value, bool):
        return {None: "none yet", False: "no", True: "yes"}[value]
    return f"{value:,}" if isinstance(value, int) else strip_control_chars(str(value))
