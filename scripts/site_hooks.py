"""What MkDocs does to a page of docs/ on its way to the site.

Links to the project's files outside of docs/ lead to the repository; links to a folder, to its README. The pages of
commands and settings get their tables from the program itself.
"""

import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
_LINK: Final = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page's text with links for the site, and with what is generated in place of its marker."""
    for marker, made in _MADE.items():
        if marker in markdown:
            markdown = markdown.replace(marker, made())
    here = Path(page.file.abs_src_path).parent
    base = f"{config['extra']['repository'].rstrip('/')}/blob/main/"
    return _LINK.sub(lambda link: _linked(link, here, base), markdown)


def _linked(link: re.Match[str], here: Path, base: str) -> str:
    target, anchor = link[2], link[3] or ""
    if re.match(r"[a-z]+:", target):
        return link[0]
    place = (here / target).resolve()
    if not place.exists():
        return link[0]  # MkDocs says so
    if not place.is_relative_to(DOCS):
        return f"{link[1]}{base}{place.relative_to(ROOT).as_posix()}{anchor}{link[4]}"
    if place.is_dir():
        return f"{link[1]}{target.rstrip('/')}/README.md{anchor}{link[4]}"
    return link[0]


def commands() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    import typer

    from prunit.cli.commands import app

    parts = []
    for name, command in sorted(typer.main.get_group(app).commands.items()):
        context = command.make_context(name, [], resilient_parsing=True)
        parts.append(f"## prunit {name}\n\n{command.help or ''}\n\n| option | what |\n|---|---|\n")
        for option in command.get_params(context):
            flags = [f"{flag} {option.metavar or ''}".strip() for flag in (*option.opts, *option.secondary_opts)]
            shown = flags if option.param_type_name == "option" else [str(option.name).upper()]
            parts.append(f"| {', '.join(f'`{each}`' for each in shown)} | {_cell(option.help or '')} |\n")
        parts.append("\n")
    return "".join(parts)


def settings() -> str:
    """The configuration file with every setting and its default."""
    return f"```toml\n{(ROOT / 'examples' / 'build.toml').read_text('utf-8')}```\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


_MADE: Final = {"<!-- commands -->": commands, "<!-- settings -->": settings}
