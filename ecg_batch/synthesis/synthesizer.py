"""Synthesizer: a request with its bank, donors and models, loaded once by each process."""

import ctypes
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ecg_batch.dataset.plan import Plan, refuse_other_software
from ecg_batch.donors.bank import Bank, read_bank
from ecg_batch.donors.noisy import NoisyDonors, noisy_donors
from ecg_batch.errors import UserError
from ecg_batch.kernels.build import why_plain
from ecg_batch.models.sequences.unit_model import UnitModel, load_unit_model
from ecg_batch.request.model import Request
from ecg_batch.statements import NOISE_KINDS
from ecg_batch.synthesis.donor_marks import Marks, bank_marks
from ecg_batch.synthesis.retime import Loops
from ecg_batch.synthesis.retrieve import DonorIndex, donors_for
from ecg_batch.synthesis.units import UnitIndex, unit_index

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass
class Synthesizer:
    """A request, and what a process loads once to make its records."""

    request: Request
    bank: Bank
    donors: DonorIndex
    models: "decode.Models | None"  # noqa: F821  None where texture is recorded
    judge: "judge.Judge | None" = None  # noqa: F821  where the request refines
    units: UnitIndex | None = None  # where texture is recorded
    noisy: NoisyDonors | None = None  # where noise is

    @cached_property
    def loops(self) -> Loops:
        """The bank's donors, ready for re-timing."""
        return Loops(self.bank)

    @cached_property
    def marks(self) -> Marks:
        """What is marked on the beats of all donors."""
        return bank_marks(self.bank)

    @cached_property
    def beat_lenders(self) -> "Lenders":  # noqa: F821
        """Donors whose beats a record with events may borrow: of the folds that the request allows."""
        from ecg_batch.synthesis.long.events.stock import lenders_of_beats

        return lenders_of_beats(self.bank, self.donors.rows, self.marks.symbol)

    @cached_property
    def beat_writer(self) -> "BeatWriter | None":  # noqa: F821
        """The model of rhythm, ready for the bank's donors, where the request asks for it."""
        if not self.request.has_beats_by_model:
            return None
        from ecg_batch.models.sequences.model import SequenceModel
        from ecg_batch.models.weights import load_arrays
        from ecg_batch.synthesis.long.beat_writer import BeatWriter

        model = SequenceModel(*load_arrays(Path(self.request.models) / "rhythm.safetensors", "rhythm"))
        return BeatWriter(model, self.bank.table, self.request.seed)

    def asked(self, **changes) -> "Synthesizer":
        """The same for a request that has these fields. Bank and models are shared; all else too, where none of them differs."""
        request = replace(self.request, **changes)
        return self if request == self.request else replace(self, request=request)


def open_synthesizer(plan: Plan, *textures: str) -> Synthesizer:
    """Loads the bank and the models that its request needs; textures: of these kinds too, for whoever compares them."""
    refuse_other_software(plan)
    request, needed = plan.request, {plan.request.texture, *textures}
    _return_large_blocks()
    models = _models(request) if "decoded" in needed else None  # first: what is wrong with a GPU or weights shows at once
    judge, bank = _judge(request), read_bank(Path(request.bank))
    units = unit_index(bank, request.donor_folds, _unit_model(request)) if "units" in needed else None
    return Synthesizer(request, bank, donors_for(request, bank.table), models, judge, units, noisy_for(request, bank))


def noisy_for(request: Request, bank: Bank) -> NoisyDonors | None:
    """Of the folds that the request allows, where it asks for recorded noise. UserError where nobody has it."""
    kinds = [kind for kind, _ in request.noise.kinds if kind in NOISE_KINDS] if request.noise else []
    return noisy_donors(bank, np.flatnonzero(np.isin(bank.table.fold, request.donor_folds)), kinds) if kinds else None


def _models(request: Request):
    """The models, on one thread: a result must not depend on how many threads a sum is split over."""
    import torch

    from ecg_batch.models import decode

    if request.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda but this machine shows no GPU to torch; results differ between CPU and GPU, so there is no "
                        "falling back. Run where a GPU is, or say device: cpu")  # fmt: skip
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False  # as for products of matrices: float32 is to mean float32
    return decode.load_models(Path(request.models), request.device)


def _unit_model(request: Request) -> UnitModel:
    if why_plain():
        import torch

        torch.set_num_threads(1)
    return load_unit_model(Path(request.models) / "units.safetensors")


def _judge(request: Request):
    if request.judge is None:
        return None
    from ecg_batch.models.judge import load_judge

    return load_judge(Path(request.models) / "judge.safetensors")[0]


def _return_large_blocks() -> None:
    """Arrays of 2 MiB and more go back to the system when they are freed.

    glibc raises that limit each time such a block is freed and so keeps ever more: 733 MiB after 2,048 records, 815 MiB after
    200,000. Naming the limit stops that. But then glibc also gives back what is free above the last block in use, from 128 KiB on,
    some hundred times a batch, and it comes again page by page: 50 of 330 us a record. So 32 MiB of it are kept; 16 are too few.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 32 << 20)
