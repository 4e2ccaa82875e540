"""Prepares the data of a run, without the run.

    python -m data.prepare --config=configs/books.py

train.py does the same when it is needed; here it can be done beforehand, on a machine without
accelerators. Killed at any moment, the same command goes on from what is done. What is there
already is only said: each corpus with its stores, what they hold, and what was left out.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import functools
import sys
import time
from typing import Any

from absl import flags

import commands
from configs import door, start_from
from configs import flags as config_flags
from data.preparation import prepare
from data.store import TokenStore
from reporting.progress import duration

CONFIG = config_flags.define()
REBUILD = flags.DEFINE_bool(
    "rebuild",
    False,
    "Build all but the tokenizer anew, even what is there: it may be damaged.",
)
VERIFY = flags.DEFINE_bool(
    "verify", False, "Read every file of the stores and of the plans, and check it."
)


def main(job: commands.Job) -> None:
    began = time.perf_counter()
    chosen, _ = start_from.applied(CONFIG.value, config_flags.given())
    config = door.read(chosen, "cpu")  # nothing here depends on the platform
    job.watch.bounds = config.watch
    job.watch.at("preparing the data", config.watch.prepare)
    with commands.PreparationProgress() as show:

        def progress(what: str, done: int, total: int) -> None:
            job.watch.still()
            show(what, done, total)

        data = prepare(
            config.data,
            progress,
            lambda tokenizer: door.check_tokenizer(config, tokenizer),
            rebuild=REBUILD.value,
        )
        if VERIFY.value:
            for corpus in data.corpora:
                tick = functools.partial(progress, f"verifying {corpus.name}: file")
                for product in (corpus.train, corpus.eval, corpus.plan):
                    if product:
                        product.verify(tick)
    for corpus in data.corpora:
        print(
            f"{corpus.name}: {corpus.dataset} {corpus.fingerprint[:12]}, weight {corpus.weight:g}"
        )
        print(f"  {describe(corpus.train)}")
        if corpus.eval:
            print(f"  {describe(corpus.eval)}")
    print(f"tokenizer: {config.data.tokenizer}, {data.tokenizer.vocab_size:,} ids")
    checked = ", every file checked" if VERIFY.value else ""
    print(f"prepared in {duration(time.perf_counter() - began)}{checked}", flush=True)
    sys.stdout.flush()


def describe(store: TokenStore) -> str:
    """What a store holds, what was left out of it, and where it is, in a line."""
    about: dict[str, Any] = store.manifest
    counts = dict(about["counts"])
    counts.pop("documents read", None)
    learned = f", {store.n_learned:,} tokens learned" if store.is_examples else ""
    more = "".join(f"; {name} {count:,}" for name, count in counts.items())
    return (
        f"{about['split']}: {store.n_documents:,} documents, {store.n_tokens:,} tokens, "
        f"{store.n_bytes:,} bytes of text{learned}{more}; {store.path}"
    )


if __name__ == "__main__":
    commands.run(main, required=("config",))
