"""Croissant: croissant.json, by which catalogues and data sets' search engines know a dataset (MLCommons Croissant 1.0,
doi:10.1145/3650203.3663326). It says what the files are, their hashes, and every column of records.parquet.
"""

from pathlib import Path

from ecg_batch.dataset.layout import ECG, HDF5, RECORDS
from ecg_batch.dataset.plan import BEATS
from ecg_batch.dataset.run import Run
from ecg_batch.dataset.tables import schema_of
from ecg_batch.files import sha256_file
from ecg_batch.leads import LEADS, MV_PER_UV

LICENCE = "https://creativecommons.org/licenses/by/4.0/"
CITATION = (
    "Wagner P., Strodthoff N., Bousseljot R.-D., Samek W., Schaeffter T.: PTB-XL, a large publicly available electrocardiography "
    "dataset. Scientific Data 7, 154 (2020). doi:10.1038/s41597-020-0495-6"
)
CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "equivalentProperty": "cr:equivalentProperty", "samplingRate": "cr:samplingRate",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract",
    "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet",
    "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath",
    "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
MEANING = {
    "record": "index of the record along the first axis of ecg", "shard": "file of samples that holds it",
    "label": "label that was asked: a superclass of PTB-XL or an SCP-ECG statement", "hr_bpm_requested": "heart rate asked, bpm",
    "hr_bpm_measured": "heart rate measured on the record, bpm", "age": "age of the donor, years", "sex": "0 male, 1 female",
    "donor_ecg_id": "ecg_id{of_donors} of the donor", "donor_patient_id": "patient_id{of_donors} of the donor: split by this",
    "donor_fold": "strat_fold{of_donors} of the donor", "blend_ecg_id": "ecg_id{of_donors} of the further donors of a blend",
    "blend_patient_id": "patient_id{of_donors} of the further donors of a blend",
    "blend_fold": "strat_fold{of_donors} of the further donors of a blend",
    "texture_ecg_id": "ecg_id{of_donors} of the donors of recorded texture",
    "texture_patient_id": "patient_id{of_donors} of the donors of recorded texture",
    "texture_fold": "strat_fold{of_donors} of the donors of recorded texture",
    "beat_ecg_id": "ecg_id{of_donors} of the donors of lent beats",
    "beat_fold": "strat_fold{of_donors} of the donors of lent beats",
    "beat_patient_id": "patient_id{of_donors} of the donors of lent beats",
    **{f"{what}_{name}": f"{said} {whose}" for name, said in (("source", "registry"), ("record", "name in its registry"))
       for what, whose in (("donor", "of the donor"), ("blend", "of the further donors of a blend"),
                           ("texture", "of the donors of recorded texture"), ("beat", "of the donors of lent beats"))},
    "scp_codes": "SCP-ECG statements and likelihoods of the donor, as JSON",
    "snr_db": "beats to added noise of the record, dB", "snr_db_by_lead": "beats to added noise of each lead, dB",
    "noise_kinds": "kinds of noise that were added, or faults",
    "masked": "where leads do not show the heart, as V3:1200-3400: lead and samples",
    "pair_id": "set of records that are alike in all but what the request varies",
    "prd_pct": "difference from the skeleton, percent", "alpha": "share of texture",
    "flags": "remarks, empty when all is well",
    "sample": "sample of the record: of a beat its R", "symbol": "WFDB annotation code", "aux": "WFDB rhythm change",
    **{f"{wave}_{end}_ms": f"{said} of the {name}, ms from the sample" for wave, name in (("p", "P wave"), ("t", "T wave"))
       for end, said in (("on", "onset"), ("peak", "peak"), ("end", "end"))},
    "qrs_on_ms": "onset of the QRS, ms from the sample", "qrs_end_ms": "end of the QRS, ms from the sample",
}  # fmt: skip


def croissant(run: Run, content_root: str) -> dict:
    """The description of a dataset whose records.parquet stands in the folder. Hashes of the other files are in SHA256SUMS."""
    request = run.request
    tables = [name for name in (RECORDS, BEATS) if (run.folder / name).exists()]
    name = {"zarr": ECG, "hdf5": HDF5}[request.format]
    samples = f"int16 (record, lead, time), {MV_PER_UV} mV a step, {request.fs_hz} Hz; leads {', '.join(LEADS)}. " + (
        "A Zarr v3 group: open it with xarray, zarr or tensorstore." if request.format == "zarr" else "One HDF5 file per shard."
    )
    return {
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"ecg-batch-{run.plan.run_id[:12]}", "version": "1.0.0",
        "description": f"{request.records:,} synthetic 12-lead ECGs of {request.duration_s} s, made by ecg-batch "
                       f"{run.plan.versions.get('ecg-batch', '')} from the beats of {'real' if run.plan.source else 'PTB-XL'} "
                       f"records. Not for diagnosis. Content root {content_root}.",
        "url": f"urn:sha256:{content_root}", **_rights(run.plan.source),
        "isLiveDataset": False,
        "distribution": [
            *[_table(run.folder / file) for file in tables],
            {"@type": "cr:FileSet", "@id": name, "name": name, "includes": f"{name}/**", "description": samples,
             "encodingFormat": {"zarr": "application/x-zarr", "hdf5": "application/x-hdf5"}[request.format]},
        ],
        "recordSet": [_record_set(run.folder / file, " in PTB-XL" * (not run.plan.source)) for file in tables],
    }  # fmt: skip


def _table(path: Path) -> dict:
    return {"@type": "cr:FileObject", "@id": path.name, "name": path.name, "contentUrl": path.name, "sha256": sha256_file(path),
            "contentSize": f"{path.stat().st_size} B", "encodingFormat": "application/x-parquet",
            "description": {RECORDS: "one row per record", BEATS: "one row per annotation of a record"}[path.name]}  # fmt: skip


def _rights(source: str) -> dict:
    """Licence and citation, where they are known. source: as in a plan."""
    return {"citeAs": source} if source else {"license": LICENCE, "citeAs": CITATION}


def _record_set(path: Path, of_donors: str) -> dict:
    """of_donors: where the numbers of donors are from."""
    fields = [_field(path, field, of_donors) for field in schema_of(path)]
    key = {"key": {"@id": "records/record"}} if path.name == RECORDS else {}
    return {"@type": "cr:RecordSet", "@id": path.stem, "name": path.stem, **key, "field": fields}


def _field(path: Path, field, of_donors: str) -> dict:
    import pyarrow.types as types

    kind, repeated = (field.type.value_type, True) if types.is_list(field.type) else (field.type, False)
    known = ((types.is_boolean, "sc:Boolean"), (types.is_integer, "sc:Integer"), (types.is_floating, "sc:Float"))
    found = next((name for is_kind, name in known if is_kind(kind)), "sc:Text")
    stated = {"@type": "cr:Field", "@id": f"{path.stem}/{field.name}", "name": field.name, "dataType": found,
              "description": MEANING.get(field.name, field.name.replace("_", " ")).format(of_donors=of_donors),
              "source": {"fileObject": {"@id": path.name}, "extract": {"column": field.name}}}  # fmt: skip
    return stated | ({"repeated": True} if repeated else {})
