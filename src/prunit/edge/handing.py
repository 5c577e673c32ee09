"""A portfolio, or some of its variants, copied into a folder of its own: what a device gets that needs no more."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from prunit.edge.portfolio import Portfolio, Variant, file_problem
from prunit.edge.served import Fleet
from prunit.errors import FileError, PortfolioError
from prunit.files import inside
from prunit.remote import check_to_folder


def of_variants(portfolio: Portfolio, names: Collection[str]) -> Portfolio:
    """The portfolio with these variants alone."""
    return portfolio.model_copy(
        update={"variants": tuple(v for v in portfolio.variants if v.name in names), "left_out": ()}
    )


def copied_to(
    to: Path, portfolio: Portfolio, folder: Path, names: Collection[str] | None = None, device: str | None = None
) -> Portfolio:
    """The portfolio as it now lies in the folder `to`, which is new or empty: with the variants of these names, or all.

    All files that its manifest names are copied, each checked by its hash, and what is said of a fleet (of one `device`
    only). The folder is there whole or not at all. Raises `FileError` where it cannot be written or is in use, and
    `PortfolioError` for a file that is damaged, `ConfigError` where `to` was an address.
    """
    check_to_folder(to)
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise FileError(f"'{to}' is not empty: name a folder that is empty or not there yet")
    found = portfolio if names is None else of_variants(portfolio, names)
    staged = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        for variant in found.variants:
            for path, sha256 in _files_of(variant):
                wrong = file_problem(folder, path, None, sha256)
                if wrong:
                    raise PortfolioError(f"{wrong}; copy the portfolio to '{folder}' again")
                (staged / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(inside(folder, path), staged / path)
        fleet = Fleet.read(folder)
        if fleet is not None:
            (fleet if device is None else fleet.only([device])).write(staged)
        found.write(staged)
        if to.is_dir():
            to.rmdir()
        staged.rename(to)
    except OSError as error:
        raise FileError(f"cannot copy '{folder}' to '{to}': {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return found


def _files_of(variant: Variant) -> list[tuple[str, str]]:
    """What the manifest lists of a variant: paths and hashes."""
    artifact, embedded = variant.artifact, variant.embedded
    stored = [file for file in (variant.plan, variant.weights) if file]
    return [
        (artifact.path, artifact.sha256),
        (artifact.self_test, artifact.self_test_sha256),
        *((file.path, file.sha256) for file in (*stored, *(embedded.files if embedded else ()))),
    ]
