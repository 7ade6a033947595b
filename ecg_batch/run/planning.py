"""Planning: the inputs of a request are checked and hashed, and its records cut into shards. Nothing is written here."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_batch.dataset.layout import cut_shards
from ecg_batch.dataset.plan import Plan, run_id_of, software_versions
from ecg_batch.errors import UserError, clipped, suggestion
from ecg_batch.files import sha256_file
from ecg_batch.models.stated import check, check_pair
from ecg_batch.models.weights import FORMAT, read_header
from ecg_batch.request.model import HR_LIMITS_BPM, Request
from ecg_batch.request.rhythm_parameters import rate_limits_bpm
from ecg_batch.statements import SUPERCLASSES

if TYPE_CHECKING:
    from ecg_batch.request.query_table import QueryTable

MOST_SHOWN = 15  # labels in a message, those with most donors first


def make_plan(request: Request) -> tuple[Plan, "QueryTable | None"]:
    """Check and hash the inputs of a request, touching nothing. Raises UserError for whatever could not be made."""
    table = None
    if request.table is not None:
        from ecg_batch.request.query_table import read_query_table

        limits = rate_limits_bpm(request.rhythm) if request.is_long else HR_LIMITS_BPM  # beats of a long record need room to vary
        table = read_query_table(request.table, request.source, limits, request.vary)
        request = _counted(request, len(table))
    if request.places_table is not None:
        from ecg_batch.request.places import read_places

        request = replace(request, places=read_places(request))
    shares = (request.mix or request.cohort).labels if table is None else None
    labels = table.labels if table else tuple(label for label, _ in shares or ())
    bank, source = _check_bank(request, labels)
    _check_places(request, labels, table)
    inputs = {"bank": bank, **_check_models(request)}
    if table:
        inputs["table"] = table.sha256()
    shards = cut_shards(request.records, request.shard)
    versions = software_versions(request)
    return Plan(run_id_of(request.resolved(), inputs), request, inputs, shards, versions, source=source), table


def _counted(request: Request, rows: int) -> Request:
    size = request.vary.size if request.vary else 1
    if request.records not in (None, rows * size):
        each = "one record" if size == 1 else f"a set of {size} records"
        raise UserError(
            f"{request.source}: records is {request.records:,} but the table has {rows:,} rows; a table makes {each} "
            "per row. Leave records out"
        )
    return replace(request, records=rows * size)


# Inputs ---------------------------------------------------------------------------------------------------------------


def _check_bank(request: Request, labels: tuple[str, ...]) -> tuple[str, str]:
    """sha256 of the bank, and whose recordings it holds if not PTB-XL's, after a look whether it serves this request."""
    from ecg_batch.donors.bank import PTBXL, bank_digest, read_beats, read_table
    from ecg_batch.donors.usable import enough_beats

    try:
        donors = read_table(Path(request.bank))
        usable = enough_beats(*read_beats(Path(request.bank)), donors.fs_hz) if request.is_long else True
        digest = bank_digest(Path(request.bank))
    except UserError as error:
        raise UserError(f"{request.source}: bank: {error}") from error
    except Exception as error:  # whatever zarr makes of a damaged folder, the user needs the same advice
        raise UserError(
            f"{request.source}: cannot read the bank {request.bank}: {type(error).__name__}: {error}. Prepare it "
            "again with ecg-batch prepare, or use 'bundled'"
        ) from error
    if donors.fs_hz != request.fs_hz:
        raise UserError(
            f"{request.source}: fs_hz is {request.fs_hz} but the bank {request.bank} holds {donors.fs_hz} Hz; donors "
            "are not resampled. Prepare a bank at this rate with ecg-batch prepare, or change fs_hz"
        )
    _check_donors(request, donors, labels, usable)
    _check_lenders(request, donors, usable)
    return digest, "" if donors.attribution.startswith(PTBXL) else donors.attribution


def _check_donors(request: Request, donors, labels: tuple[str, ...], usable) -> None:
    import numpy as np

    donors = donors.at_least(request.min_likelihood)
    counts = (donors.likelihood >= 0).any(axis=1) | (request.min_likelihood == 0)
    allowed = np.isin(donors.fold, request.donor_folds) & usable & counts
    known = [*SUPERCLASSES, *donors.codes]
    held = {label: int((donors.holds(label) & allowed).sum()) for label in known}
    absent = [label for label in labels if not held.get(label)] if labels else ["any label"] * (not allowed.any())
    if absent:
        present = sorted((label for label, count in held.items() if count), key=lambda label: -held[label])
        shown = ", ".join(f"{label} ({held[label]})" for label in present[:MOST_SHOWN])
        shown += f" and {len(present) - MOST_SHOWN} more" * (len(present) > MOST_SHOWN)
        meant = "" if absent[0] in held else suggestion(absent[0], present)
        which = " with three whole beats, as long records need," if request.is_long else ""
        if least := request.min_likelihood:
            which += f" at a likelihood of {least} % or more (min_likelihood; PTB-XL mostly states 0 of rhythm and form),"
        raise UserError(
            f"{request.source}: no donor for {clipped(', '.join(absent[:10]))}{meant}{which} in folds "
            f"{', '.join(map(str, request.donor_folds))} of the bank {request.bank}; labels with donors: "
            f"{shown or 'none'}. Ask for these, or prepare a bank that holds the others"
        )


def _check_lenders(request: Request, donors, usable) -> None:
    """Whoever has an event that only another patient's beats can make needs two patients that have such beats."""
    import numpy as np

    from ecg_batch.request.events import LENT
    from ecg_batch.request.places import all_places

    allowed, asked = np.isin(donors.fold, request.donor_folds) & usable, {event.name for event in request.events or ()}
    asked |= {place.event for place in all_places(request)}
    for kind, (statements, names) in LENT.items():
        held = np.any([donors.holds(code) for code in sorted(statements)], axis=0) & allowed
        needing = [name for name in names if name in asked]
        if needing and len(np.unique(donors.patient_id[held])) < 2:
            raise UserError(
                f"{request.source}: events {', '.join(needing)} need the {kind} beats of other patients, and of the donors in "
                f"folds {', '.join(map(str, request.donor_folds))} of the bank {request.bank} fewer than two patients hold "
                f"{' or '.join(sorted(statements))}. Leave these events out, allow more donor_folds, or take a larger bank"
            )


def _check_places(request: Request, labels: tuple[str, ...], table: "QueryTable | None") -> None:
    """Records whose label leaves no donor in sinus rhythm cannot have what comes to sinus rhythm alone."""
    from ecg_batch.donors.split import UNLOCKED_ATRIAL
    from ecg_batch.request.events import OVERLAYS, VENTRICULAR_EVENTS
    from ecg_batch.request.places import all_places

    never = {*UNLOCKED_ATRIAL, "PACE"} & set(labels)
    for place in all_places(request) if never else ():
        asked = labels if place.record is None else (_label_of(request, place.record, table),)
        if place.event not in OVERLAYS | VENTRICULAR_EVENTS and (odd := sorted(never & set(asked))):
            which = "every record" if place.record is None else f"record {place.record}"
            raise UserError(
                f"{request.source}: events: table {request.places_table}: {which} is to have {place.event} at {place.start_s:g} s, "
                f"but label {odd[0]} means another rhythm than the sinus rhythm to which that comes. Leave the row out, name other "
                "records, or ask for other labels"
            )


def _label_of(request: Request, key: int, table: "QueryTable | None") -> str:
    """What a record, or a set, is asked for."""
    if table is not None:
        return table.labels[table.label_index[key]]
    from ecg_batch.synthesis.ask import mix_queries

    return str(mix_queries(request, key, key + 1).label[0]) if request.mix else ""


def _check_models(request: Request) -> dict[str, str]:
    """sha256 of the weight files that are needed, after a look at what they say they are. No torch: their headers are JSON."""
    folder = Path(request.models)
    names = ("units",) if request.texture == "units" else ("vqvae", "mamba", "judge") if request.judge else ("vqvae", "mamba")
    names += ("rhythm",) if request.has_beats_by_model else ()
    paths = {name: folder / f"{name}.safetensors" for name in names}
    try:
        headers = {name: read_header(path) for name, path in paths.items()}
        inputs = {name: sha256_file(path) for name, path in paths.items()}
    except (OSError, ValueError) as error:
        without = "rhythm" in paths and not paths["rhythm"].exists()  # as folders of models from before 0.5.0
        raise UserError(
            f"{request.source}: cannot read the models in {folder}: {error}. Give a folder with "
            f"{' and '.join(path.name for path in paths.values())} made by ecg-batch train, or 'bundled'"
            + ". Without a model of rhythm say rhythm: {order: rules}" * without
        ) from None
    for name, (metadata, _) in headers.items():
        _check_weights(request, paths[name], metadata, FORMAT[name])
    if "mamba" in names and headers["mamba"][0].get("vqvae_sha256") != inputs["vqvae"]:
        raise UserError(
            f"{request.source}: {paths['mamba']} was trained on the tokens of another vqvae.safetensors than the one "
            "beside it; its tokens would mean nothing here. Take both files from one training, or run ecg-batch train "
            "mamba again"
        )
    try:
        sizes = {name: check(paths[name], name, *header) for name, header in headers.items()}
        if "mamba" in names:
            check_pair(paths["mamba"], sizes["vqvae"], sizes["mamba"])
    except UserError as error:
        raise UserError(f"{request.source}: models: {error}") from error
    return inputs


def _check_weights(request: Request, path: Path, metadata: dict, needed: str) -> None:
    if metadata.get("format") != needed:
        raise UserError(f"{request.source}: {path} states the format {metadata.get('format')!r}; needed {needed!r}. Train it again")
    if path.stem == "rhythm":
        return
    if path.stem != "judge" and metadata.get("fs_hz") != str(request.fs_hz):  # the judge brings every rate to its own
        raise UserError(
            f"{request.source}: fs_hz is {request.fs_hz} but {path} was trained at {metadata.get('fs_hz')} Hz. Use "
            "models of this rate, or change fs_hz"
        )
