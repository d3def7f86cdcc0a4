"""`jensen completion`: a script that completes commands, flags and their choices in a shell."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro

from jensen.commands.common import Command, flags

BASH = """\
# Completion of jensen. bash: eval "$(jensen completion bash)"  zsh: eval "$(jensen completion zsh)"
_jensen() {
    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" command="" flags=""
    local first="${COMP_WORDS[1]}" pair="${COMP_WORDS[1]} ${COMP_WORDS[2]}"
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($(compgen -W "@FIRST@" -- "$current"))
        return
    fi
    case "$first" in
@SECOND@
    esac
    case "$pair" in
@PAIRS@
    esac
    case "${command:-$first} $before" in
@CHOICES@
    esac
    case "${command:-$first}" in
@FLAGS@
    esac
    if [[ "$current" == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$current"))
    fi
}
complete -o default -F _jensen jensen
"""
ZSH = """\
(( $+functions[compdef] )) || { autoload -U +X compinit && compinit }
autoload -U +X bashcompinit && bashcompinit
"""


class Completion(Command):
    """Print a script that completes commands and flags in a shell."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """The shell. Put eval "$(jensen completion bash)" into ~/.bashrc; the same with zsh into ~/.zshrc.
    fish: jensen completion fish > ~/.config/fish/completions/jensen.fish"""

    def execute(self) -> None:
        """Print the script."""
        print(completion(self.shell), end="")


def completion(shell: Literal["bash", "zsh", "fish"]) -> str:
    """The script for a shell, from the commands and their options."""
    from jensen.commands import commands

    options = {
        name: {flag: tuple(_choices(annotation)) for flag, annotation in flags(kind)}
        for name, kind in commands().items()
    }
    return _fish(options) if shell == "fish" else (ZSH if shell == "zsh" else "") + _bash(options)


def _choices(annotation: Any) -> Iterator[str]:
    """The values of a `Literal`, also inside unions and tuples."""
    if get_origin(annotation) is Literal:
        yield from (str(value) for value in get_args(annotation))
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _bash(options: dict[str, dict[str, tuple[str, ...]]]) -> str:
    pairs = [name for name in options if " " in name]
    first = list(dict.fromkeys(name.split()[0] for name in options))
    second = {word: [pair.split()[1] for pair in pairs if pair.split()[0] == word] for word in first}
    lines = {
        "FIRST": " ".join(first),
        "SECOND": "\n".join(
            f'        {word}) if (( COMP_CWORD == 2 )); then COMPREPLY=($(compgen -W "{" ".join(seconds)}" -- '
            '"$current")); return; fi ;;'
            for word, seconds in second.items()
            if seconds
        ),
        "PAIRS": "\n".join(f'        "{pair}") command="{pair}" ;;' for pair in pairs),
        "CHOICES": "\n".join(
            f'        "{name} {flag}") COMPREPLY=($(compgen -W "{" ".join(choices)}" -- "$current")); return ;;'
            for name, own in options.items()
            for flag, choices in own.items()
            if choices
        ),
        "FLAGS": "\n".join(f'        "{name}") flags="--help {" ".join(own)}" ;;' for name, own in options.items()),
    }
    script = BASH
    for place, text in lines.items():
        script = script.replace(f"@{place}@", text)
    return script


def _fish(options: dict[str, dict[str, tuple[str, ...]]]) -> str:
    lines = ["# Completion of jensen: jensen completion fish > ~/.config/fish/completions/jensen.fish"]
    first = dict.fromkeys(name.split()[0] for name in options)
    lines += [f"complete -c jensen -n __fish_use_subcommand -f -a {word}" for word in first]
    for name, own in options.items():
        word, *second = name.split()
        if second:
            lines.append(f"complete -c jensen -n '__fish_seen_subcommand_from {word}' -f -a {second[0]}")
        seen = " && ".join(f"__fish_seen_subcommand_from {part}" for part in name.split())
        for flag, choices in own.items():
            given = f" -x -a '{' '.join(choices)}'" if choices else ""
            lines.append(f"complete -c jensen -n '{seen}' -l {flag.removeprefix('--')}{given}")
    return "\n".join(lines) + "\n"
