"""What was asked: the request in words, and as a file that asks for it again."""

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.plan import Plan
from ecg_batch.errors import number_of
from ecg_batch.report.parts import Code, Facts, Section, Words
from ecg_batch.request.events import KINDS
from ecg_batch.request.model import Distribution, Request
from ecg_batch.request.places import all_places
from ecg_batch.request.query_table import NAME as QUERIES
from ecg_batch.request.write import PLACES, as_file, as_text, has_usual_events, number
from ecg_batch.statements import RATE_RANGE_BPM

MOST_NAMED = 24  # labels in words
NOISE = {"muscle": "muscle", "electrode": "electrode motion", "baseline": "wandering baseline", "mains": "mains",
         "baseline_drift": "recorded baseline drift", "static_noise": "recorded static noise",
         "burst_noise": "recorded burst noise", "electrodes_problems": "recorded electrode problems",
         "lead_off": "leads off", "swapped": "arms exchanged", "clipped": "a converter at its end"}  # fmt: skip
VARIED = {"hr_bpm": "heart rate (bpm)", "snr_db": "ratio to noise (dB)", "alpha": "share of texture",
          "axis_deg": "electrical axis (degrees)", "electrode": "place of chest electrodes"}  # fmt: skip


def asked(plan: Plan, digests: dict[str, str]) -> Section:
    """digests: name of an input -> sha256 of the bundled one, where the project brings one."""
    request = plan.request
    parts: list = [Facts(in_words(request) + inputs(plan, digests))]
    if not (request.mix or request.cohort):
        parts.append(Words(f"A row a record was asked for by a table; it lies beside the dataset as {QUERIES}."))
    if request.places:
        parts.append(Words(f"Places of events were asked for by a table, here called {PLACES}; its rows stand in plan.json."))
    says = "As a request file. With the same bank, models and software it makes the same bytes."
    return Section("What was asked", "asked", [*parts, Code(as_text(as_file(request)), says)])


def in_words(request: Request) -> list[tuple[str, str]]:
    said = [("Records", f"{request.records:,} of {length(request.duration_s)} at {request.fs_hz} Hz, seed {request.seed}")]
    if request.mix:
        mix = request.mix
        sex = "any" if mix.female is None else f"{percent(mix.female)} female, {percent(1 - mix.female)} male"
        said += [
            ("Labels", labels(mix.labels)),
            ("Heart rate", drawn(mix.hr_bpm, "bpm", "the donor's own" if not request.vary else "the donor's own, or as varied")
             + "; labels that imply a rate keep to it" * bool(mix.hr_bpm and RATE_RANGE_BPM.keys() & dict(mix.labels).keys())),
            ("Age", drawn(mix.age, "years", "any")),
            ("Sex", sex),
        ]
    elif request.cohort:
        said.append(("Cohort", f"what the donors are: {labels(request.cohort.labels or ()) or 'each as often as the next'}"))
    folds = ", ".join(map(str, request.donor_folds))
    least = f", who hold a label at {request.min_likelihood} % or more" if request.min_likelihood else ""
    said.append(("Donors", f"from folds {folds}{least}; one of the {request.k} nearest each time"))
    said.append(("Texture", ("other patients' recorded noise" if request.texture == "units" else "decoded by the models")
                 + f", share {number(request.alpha)}"))  # fmt: skip
    said.append(("Noise", noise(request)))
    if request.is_long:
        said.append(("Rhythm", {"mamba": "which beat comes is said by the model", "rules": "which beat comes is said by rules"}[
            request.rhythm.order]))  # fmt: skip
        said.append(("Events", events(request)))
    if request.variation:
        each = [f"{name} {number(value)}" for name, value in vars(request.variation).items() if value]
        said.append(("Variation", ", ".join(each)))
    if request.vary:
        each = [f"{VARIED[name]} {', '.join(f'{value:g}' for value in values)}" for name, values in request.vary.values]
        said.append(("Sets", f"of {request.vary.size} records, alike in all but: {'; '.join(each)}"))
    bounds = (("difference from the skeleton at most", request.prd_limit_pct, "%"), ("low-pass at", request.lowpass_hz, "Hz"))
    limits = [f"{what} {value:g} {unit}" for what, value, unit in bounds if value is not None]
    return said + ([("Limits", ", ".join(limits))] if limits else [])


def inputs(plan: Plan, digests: dict[str, str]) -> list[tuple[str, str]]:
    """Of what it was made, by digest: names of folders say nothing elsewhere."""
    said = []
    for name, sha256 in plan.inputs.items():
        whose = f"{'' if digests[name] == sha256 else 'not '}the bundled one, " if name in digests else ""
        said.append((name.capitalize(), f"{whose}sha256 {sha256[:16]}"))
    return said


def bundled_digests(plan: Plan) -> dict[str, str]:
    """sha256 of the bundled bank, and of those bundled weights that a plan names."""
    from ecg_batch.donors.bank import bank_digest
    from ecg_batch.files import sha256_file

    weights = {name: BUNDLED / f"{name}.safetensors" for name in plan.inputs}
    return {"bank": bank_digest(BUNDLED)} | {name: sha256_file(path) for name, path in weights.items() if path.exists()}


def labels(shares) -> str:
    """The most frequent with their shares, and how many more."""
    said = [f"{label} {percent(share)}" for label, share in by_share(shares)]
    return ", ".join(said[:MOST_NAMED]) + f" and {len(said) - MOST_NAMED} more, as below" * (len(said) > MOST_NAMED)


def by_share(labels) -> list[tuple[str, float]]:
    return sorted(labels, key=lambda each: (-each[1], each[0]))


def noise(request: Request) -> str:
    if request.noise is None:
        return "none beside the texture"
    asked = request.noise
    kinds = ", ".join(f"{NOISE[name]} {percent(share)}" for name, share in by_share(asked.kinds))
    varied = request.vary is not None and bool(request.vary.of("snr_db"))
    ratio = "" if varied else f"; {drawn(asked.snr_db, 'dB')}, beats to noise"
    often = "" if asked.per_hour is None else f"; {asked.per_hour:g} times an hour"
    return kinds + ratio + often + ("" if asked.length_s is None else f", for {drawn(asked.length_s, 's')}")


def events(request: Request) -> str:
    if not request.has_events:
        return "none beside the donor's own"
    if has_usual_events(request):
        return f"all {len(KINDS)} kinds, each as often, as long and in as many records as where nothing is said of it"
    said = [f"{KINDS[event.name].meaning} ({drawn(event.per_hour, 'an hour')}, in {percent(event.share)} of the records)"
            for event in request.events or ()]  # fmt: skip
    placed = f"{number_of(len(all_places(request)), 'place')} by a table" if request.places else ""
    return "; ".join(filter(None, [*said, placed]))


def drawn(asked: Distribution | None, unit: str, otherwise: str = "") -> str:
    """A number that is drawn, in words."""
    if asked is None:
        return otherwise
    if asked.low == asked.high:
        return f"{asked.low:g} {unit}"
    if asked.mean is None:
        return f"{asked.low:g} to {asked.high:g} {unit}, all equally likely"
    return f"{asked.mean:g} ± {asked.sd:g} {unit}, within {asked.low:g} to {asked.high:g}"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def length(seconds: float) -> str:
    """'10 s', '10 min', '1 h', '1.5 h'"""
    for each, unit in ((3600, "h"), (60, "min")):
        if seconds >= each and 4 * seconds % each == 0:
            return f"{seconds / each:g} {unit}"
    return f"{seconds:g} s"
