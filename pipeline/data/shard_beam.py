"""Shards of features computed by an Apache Beam pipeline, on this machine or on many."""

import pathlib
import shlex
from collections.abc import Iterator, Sequence

from spidercap.pipeline.data.feature_store import shard_path
from spidercap.pipeline.data.shard_work import Done, Shard, compute_shard, loaded
from spidercap.pipeline.errors import UserError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise UserError("--beam_options needs Apache Beam; pip install '.[beam]', or leave it out") from error


class ComputeShard(beam.DoFn):
    """Computes and writes shards."""

    def __init__(self, encoder: pathlib.Path):
        """Takes the path of a .keras file that all workers can read."""
        self._encoder = encoder

    def process(self, shard: Shard):
        """Computes and writes one shard. A runner may do that again after a fault: the shard is replaced by itself."""
        yield len(compute_shard(loaded(self._encoder, shard.image_size), shard).path.name)


def by_beam(encoder: pathlib.Path, shards: Sequence[Shard], options: str) -> Iterator[Done]:
    """Computes and writes shards by a pipeline with these options; yields all of them after its end.

    Workers read the images and `encoder`, and write the shards, at the paths that these have here.

    Raises:
      UserError: the options cannot be used, or the pipeline failed; shards that were written stay.
    """
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(shlex.split(options)))
    except (Exception, SystemExit) as error:  # argparse exits, runners raise what they like
        raise UserError(f"--beam_options={options} cannot be used ({_reason(error)}); see Beam's options") from error
    plan = pipeline | "Plan" >> beam.Create(list(shards)) | "Spread" >> beam.Reshuffle()
    _ = plan | "Compute" >> beam.ParDo(ComputeShard(encoder))
    try:
        state = pipeline.run().wait_until_finish()
    except Exception as error:  # of any runner, and of the workers
        raise UserError(
            f"Beam's pipeline failed ({_reason(error)}); finished shards are kept: run the same command again"
        ) from error
    if state not in (None, "DONE"):
        raise UserError(f"Beam's pipeline ended as {state}; finished shards are kept: run the same command again")
    for shard in shards:
        yield Done(shard_path(shard.folder, shard.keys), len(shard.keys))


def _reason(error: BaseException) -> str:
    """The last line of what may hold the trace of a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
