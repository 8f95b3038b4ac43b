"""Learn to pronounce English: letters in, phonemes out, from the CMU Pronouncing Dictionary.

    python examples/pronounce.py                      train for about two and a half minutes
    python examples/pronounce.py --minutes 60         train a larger model for about an hour
    python examples/pronounce.py say jaxmask ragged   say words with the trained model

Words have 1 to 28 letters, so every batch is ragged. `jm.bucket_batches` pads them and makes the
masks, the layers of `jm.nn` pass each mask on, and `jm.losses.ctc_loss` and
`jm.metrics.edit_distance` consume it: nothing in this example multiplies by a mask or drops one.

Training writes metrics.json, picture.png and a checkpoint into the folder `--out`. If it is killed
and restarted with the same options, it resumes from its last checkpoint and ends with the same
result. It uses all of `jax.devices()`: one CPU, one GPU, or several devices, which shard each batch
and, with `--spread`, the parameters.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import jax
from _pronounce import STARTED, data, devices, model, picture, progress, speaking
from _pronounce.checkpoint import Checkpoints
from _pronounce.errors import UserError
from _pronounce.evaluation import Evaluator, Score
from _pronounce.notes import Notes
from _pronounce.settings import PRESETS, Request
from _pronounce.training import State, Trainer, learning_rate
from rich.console import Console

OUT = Path("runs/pronounce")
CHECKPOINT_EVERY = 500
EVALUATION_SECONDS = 10
EVALUATION_BATCH = 256
EVALUATION_BOUNDARIES = (10, 32)


class Run:
    """A training run: its words, its model, and the folder where it is kept."""

    def __init__(self, request: Request, out: Path, console: Console, *, spread: bool = False):
        self.request, self.out, self.console = request, out, console
        self.preset = request.preset()
        self.checkpoints = Checkpoints(out)
        self._split_words()
        graphdef, params = model.split(self.preset.size, request.seed)
        mesh = devices.all_devices()
        self.trainer = Trainer(graphdef, mesh, request.seed, spread=spread)
        self.evaluator = Evaluator(graphdef, mesh, spread=spread)
        self.state = self.trainer.initial_state(params)
        self.notes = Notes(asdict(request))
        self.seconds_before = 0.0
        self.step = 0

    def _split_words(self) -> None:
        parts = data.split(data.read_dictionary(), self.request.words)
        training, self.development, self.held_out = map(data.Entries.of, parts)
        fitting = training.that_fit()
        self.batches = data.Batches(
            fitting,
            self.preset.batch_size,
            max_shapes=self.preset.shapes,
            shuffle_seed=self.request.seed,
        )
        self.console.print(
            f"{len(parts.training):,} words to learn from, {len(parts.held_out):,} held out. "
            f"{len(training) - len(fitting)} of {len(training):,} pronunciations need more than "
            f"{data.FRAMES_A_LETTER} frames a letter (like w, D AH B AH L Y UW): they are left out "
            "of training; words like that still count in evaluation."
        )

    def train(self) -> Score:
        """Resume from the newest checkpoint, or start; train to the last step; evaluate."""
        self._resume()
        if self.notes.steps and self.step == self.notes.steps:
            self.console.print(
                f"This run is complete: {self.step:,} steps are in {self.checkpoints.folder}. "
                "Evaluating it again; --fresh trains from scratch."
            )
        else:
            self._compile()
            self._fit()
        return self._report()

    def _resume(self) -> None:
        step = self.checkpoints.newest(self.console.print)
        if step is None:
            return
        notes = Notes(**self.checkpoints.notes(step)[0])
        if notes.request != asdict(self.request):
            raise UserError(
                f"{self.out} holds a run with other options: "
                f"{Request(**notes.request).described()}. Choose another folder with --out, "
                "or train from scratch with --fresh."
            )
        like = self.state._asdict().items()
        self.state = State(**{name: self.checkpoints.tree(step, name, tree) for name, tree in like})
        self.notes, self.step, self.seconds_before = notes, step, notes.seconds
        if step < notes.steps:
            self.console.print(f"Resuming from the checkpoint of step {step:,}.")

    def _compile(self) -> None:
        samples = self.batches.one_of_each_shape()
        with self.console.status(f"Compiling for {len(samples)} shapes"):
            self.trainer.compile(self.state, samples)
        if not self.notes.steps:
            self.notes.steps = self.request.fixed_steps() or self._steps_in_time(samples)
        self.console.print(
            f"{self.notes.steps:,} steps of {self.preset.batch_size} words on "
            f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        )

    def _steps_in_time(self, samples: Sequence[data.Batch]) -> int:
        """How many steps fit into `--minutes`, from the measured time of a step of each shape."""
        seconds = self.trainer.seconds_a_step(self.state, samples)
        epoch = sum(seconds[batch.letters.shape[1]] for batch in self.batches.epoch(0))
        left = 60 * self.request.minutes - (time.perf_counter() - STARTED) - EVALUATION_SECONDS
        return max(1, int(0.92 * left * len(self.batches) / epoch))

    def _fit(self) -> None:
        with progress.bar(self.console, self.step, self.notes.steps) as bar:
            for batch in self.batches.from_step(self.step):
                self._learn(batch)
                recent = self.notes.losses[-50:]
                bar.update(self.step, sum(recent) / len(recent), self.notes.letters_per_second())
                done = self.step == self.notes.steps
                if done or self.step % CHECKPOINT_EVERY == 0:
                    self._keep()
                if done:
                    return

    def _learn(self, batch: data.Batch) -> None:
        start = time.perf_counter()
        rate = learning_rate(self.preset.learning_rate, self.step, self.notes.steps)
        self.state, loss = self.trainer.step(self.state, batch, self.step, rate)
        self.notes.losses.append(float(loss))  # waits for the step to end
        self.notes.letters += int(batch.mask.sum())
        self.notes.training_seconds += time.perf_counter() - start
        self.step += 1

    def _keep(self) -> None:
        """Score the development words, and write a checkpoint."""
        score = self._score(self.development)
        self.notes.development.append((self.step, score.phoneme_error_rate))
        self.notes.seconds = self._seconds()
        self.checkpoints.save(self.step, asdict(self.notes), **self.state._asdict())
        self.console.print(
            f"Step {self.step:,}: phoneme error rate {score.phoneme_error_rate:.2%} "
            "(development words), checkpoint written"
        )

    def _score(self, entries: data.Entries) -> Score:
        batches = data.Batches(entries, EVALUATION_BATCH, boundaries=EVALUATION_BOUNDARIES)
        return self.evaluator.score(self.state.params, entries, batches)

    def _seconds(self) -> float:
        """Time since the run started, without the time between a kill and the next start."""
        return self.seconds_before + time.perf_counter() - STARTED

    def _report(self) -> Score:
        with self.console.status("Evaluating on held-out words"):
            score = self._score(self.held_out)
        self._draw()
        metrics = json.dumps(self._metrics(score), indent=2)
        (self.out / "metrics.json").write_text(metrics + "\n")
        self._tell(score)
        return score

    def _tell(self, score: Score) -> None:
        lines = (
            f"Phoneme error rate: {score.phoneme_error_rate:.2%}",
            f"Word error rate:    {score.word_error_rate:.2%} of {score.words:,} held-out words",
            f"Time:               {self._seconds():.0f} s, in training "
            f"{self.notes.letters_per_second():,.0f} real letters a second",
            f"Written to:         {self.out} (metrics.json, picture.png, checkpoint)",
            f"Now try:            python {sys.argv[0]} say colonel --out {self.out}",
        )
        self.console.print(*lines, sep="\n", highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        """Draw the learning curve, and held-out words of all lengths in one ragged batch."""
        by_length = sorted(range(len(self.held_out)), key=lambda k: len(self.held_out.words[k]))
        chosen = by_length[:: max(1, len(by_length) // picture.ROWS)][: picture.ROWS]
        entries = self.held_out.at(chosen)
        batch = next(data.Batches(entries, len(chosen), max_shapes=1).epoch(0))
        said = self.evaluator.say(self.state.params, batch)
        curve = self.notes.losses, self.notes.development
        picture.draw(self.out / "picture.png", *curve, entries, batch, said)

    def _metrics(self, score: Score) -> dict[str, object]:
        return {
            "phoneme_error_rate": score.phoneme_error_rate,
            "word_error_rate": score.word_error_rate,
            "held_out_words": score.words,
            "seconds": round(self._seconds(), 1),
            "training_seconds": round(self.notes.training_seconds, 1),
            "real_letters_per_second": round(self.notes.letters_per_second()),
            "steps": self.step,
            "batch_size": self.preset.batch_size,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.state.params)),
            "request": self.notes.request,
            "devices": [str(device.device_kind) for device in jax.devices()],
            "versions": {name: version(name) for name in ("jaxmask", "jax", "flax")},
        }


def train(options: argparse.Namespace) -> None:
    """Train, or resume training, and evaluate."""
    if options.fresh:
        Checkpoints(options.out).delete()
    asked = Request(options.seed, options.steps, options.minutes, options.model, options.words)
    Run(asked, options.out, Console(), spread=options.spread).train()


def say(options: argparse.Namespace) -> None:
    """Print how the trained model pronounces each word."""
    pronunciations = speaking.say(options.words, Checkpoints(options.out))
    for word, phonemes in zip(options.words, pronunciations, strict=True):
        print(word, " ".join(phonemes), sep="\t")


def parser() -> argparse.ArgumentParser:
    """The command line: training by default, and the command `say`."""
    summary, _, details = __doc__.partition("\n")
    command = argparse.ArgumentParser(
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=train)
    add = command.add_argument
    add("--out", type=Path, default=OUT, help=f"folder of the run (default: {OUT})")
    minutes = "train for about this long: time a step, and choose a model to match"
    add("--minutes", type=_number(float, 1), help=minutes)
    add("--steps", type=_number(int, 1), help="train for exactly this many steps")
    add("--model", choices=PRESETS, help="model size, instead of one to match --minutes")
    add("--words", type=_number(int, 20), help="use only this many words, for a quick look")
    add("--seed", type=int, default=0, help="seed of parameters, batches and noise (default: 0)")
    spread = "shard the parameters over devices instead of replicating them"
    add("--spread", action="store_true", help=spread)
    add(
        "--fresh", action="store_true", help="delete the checkpoint in --out and start from scratch"
    )
    sub = command.add_subparsers(title="commands", metavar="say WORD...")
    speak = sub.add_parser("say", help="say words with the trained model")
    speak.set_defaults(run=say)
    speak.add_argument("words", metavar="WORD", nargs="+", help="letters a-z and ' - .")
    speak.add_argument("--out", type=Path, default=argparse.SUPPRESS, help="folder of the run")
    return command


def _number(kind: type, least: int) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"pronounce: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\npronounce: stopped; the same command goes on from the last checkpoint.",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    # What XLA compiles is kept there, so that the next start takes a fraction of the time.
    jax.config.update("jax_compilation_cache_dir", "runs/programs")
    if status := main():
        sys.exit(status)
