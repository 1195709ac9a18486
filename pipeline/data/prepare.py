"""The splits of a run's data set."""

import pkgutil
from collections.abc import Callable, Iterable

from spidercap.pipeline.data.files_source import files_source
from spidercap.pipeline.data.records import SPLITS, Source, Split
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.datasets import kind_of


def prepare_data(
    config: Config, accept: Callable[[dict[str, str]], None] = lambda fingerprints: None, wanted: Iterable[str] = SPLITS
) -> dict[str, Split]:
    """Returns the wanted splits that the data set has; what is found out about its images is kept in the cache.

    Args:
      config: the settings.
      accept: called with the fingerprints by split before anything is rendered; raises to reject them.
      wanted: names of SPLITS.

    Raises:
      UserError: captions or images cannot be used.
    """
    kind, _ = kind_of(config.data.dataset)
    build = pkgutil.resolve_name(kind.source)
    if list(wanted) == ["test"] and config.data.test_captions:
        build = files_source  # captions that the run never saw, whatever it was trained on
    source: Source = build(config.data, config.cache_path(), list(wanted))
    accept(dict(source.fingerprints))
    return source.load()
