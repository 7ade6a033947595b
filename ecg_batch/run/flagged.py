"""Flagged: a run whose records mostly carry a flag says so while there is time to stop it."""

import logging
from dataclasses import dataclass, field

from ecg_batch.dataset.receipts import flags_in_words

log = logging.getLogger(__name__)

MOST = 0.5  # of a shard's records


@dataclass
class FlagWatch:
    """Looks at receipts as they come, and warns once. Receipts that were looked at are not looked at again."""

    seen: set[int] = field(default_factory=set)  # shards
    told: bool = False

    def look(self, receipts: dict[int, dict]) -> None:
        """receipts: all so far, by shard."""
        fresh = [receipt for shard, receipt in receipts.items() if shard not in self.seen]
        self.seen |= receipts.keys()
        worst = max(fresh, key=lambda receipt: receipt.get("flagged", 0) / receipt["records"], default=None)
        if self.told or not worst or worst.get("flagged", 0) <= MOST * worst["records"]:
            return
        self.told = True
        log.warning(
            "shard %s: %s. What is asked for can hardly be made; Ctrl-C ends the run, and docs/format.md says what the flags mean",
            worst["shard"],
            flags_in_words(worst, worst["records"]),
        )
