"""The page of `--mode=demo`, made with Gradio: an image in, captions and scores out."""

import contextlib
import html
import os
import types
from collections.abc import Iterator, Sequence

from spidercap.pipeline.demo.answers import Answer, Answerer
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.caption_files import ExportedCaptioner, exported_model
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.settings.config import Config

MISSING = (
    "--mode=demo needs the package gradio, which is not installed; pip install 'gradio>=6.31,<7', "
    "or in a checkout pip install '.[demo]'"
)
LARGEST_FILE = "64mb"
KEPT = 600  # seconds that Gradio keeps an uploaded file
EMPTY = "Captions appear here."
HEIGHT = 300  # of the image on the page, in pixels
STYLE = """
#captions table {width: 100%; font-size: 0.9em}
#captions td, #captions th {padding: 0.3em 0.7em; text-align: left; vertical-align: top}
#captions th {white-space: nowrap}
"""
HEADS = ("decoder", "rank", "caption", "log-probability", "probability")
APPROXIMATE = ("spice_fast",)  # needs no Java
NOTES = """Log-probabilities are natural logarithms and sums over the tokens of a caption. Scores are of each caption
against the references that you write. CIDEr is missing, because it is 0 for the references of a single image. METEOR
and SPICE need Java and are those of `--mode=score`; SPICE-fast is an approximation of SPICE."""


def run_demo(config: Config) -> None:
    """Serves the page until Ctrl-C.

    Raises:
      UserError: Gradio is missing, the folder holds no exported model of images, or the port is taken.
    """
    gradio = _gradio()
    captioner = ExportedCaptioner(exported_model(config.run.export_dir or config.run.workdir))
    with open_text_metrics(APPROXIMATE, **config.metrics.for_workers()) as text_metrics:
        page = build(gradio, Answerer(captioner.signatures, text_metrics))
        # System fonts, because the page must work without the internet.
        theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
        with _port_reported(config):
            page.launch(
                server_name=config.run.host,
                server_port=config.run.port,
                max_file_size=LARGEST_FILE,
                share=False,
                quiet=True,
                footer_links=[],
                theme=theme,
                css=STYLE,
                prevent_thread_lock=True,
            )
        print(f"demo:        http://{config.run.host}:{config.run.port} (Ctrl-C stops it)", flush=True)
        page.block_thread()


def build(gradio: types.ModuleType, answerer: Answerer):
    """Returns the page as gradio.Blocks."""
    with gradio.Blocks(title="spidercap", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gradio.Markdown("# Captions of an image")
        with gradio.Row():
            image = gradio.Image(
                type="filepath", sources=["upload", "clipboard"], label="Drop or paste an image", height=HEIGHT
            )
            # Gradio would open the file itself, and fail where the model tells why it refuses it.
            image.preprocess = lambda payload: payload and payload.path
            with gradio.Column():
                references = gradio.Textbox(label="References, one per line (optional)", lines=5, max_lines=5)
                button = gradio.Button("Caption and score", variant="primary")
        headline = gradio.Markdown(EMPTY, elem_id="headline")
        table = gradio.HTML(elem_id="captions")
        gradio.Markdown(NOTES)
        gradio.on(
            [image.change, button.click],
            lambda path, text: shown(answerer, path, text),
            inputs=[image, references],
            outputs=[headline, table],
            api_visibility="private",
        )
    return page


def shown(answerer: Answerer, path: str | None, references: str) -> tuple[str, str]:
    """Returns the text above the table as Markdown, and the table as HTML or ''."""
    if not path:
        return EMPTY, ""
    answer = answerer.answer(path)
    if answer.refusal:
        return f"**Refused.** {_plain(answer.refusal)} Give a whole JPEG, PNG, GIF, BMP or WebP image.", ""
    head = f"## {_plain(answer.found[0].caption) or '(the empty caption)'}\n\n{answer.summary()}"
    lines = [line for line in references.splitlines() if line.strip()]
    if not lines:
        return head, _table([HEADS, *_rows(answer)])
    try:
        scores = answerer.scores(answer, lines)
    except UserError as error:
        return f"{head}\n\n**No scores:** {_plain(str(error))}", _table([HEADS, *_rows(answer)])
    columns = answerer.columns()
    rows = [[*row, *(_score(of[name]) for name in columns)] for row, of in zip(_rows(answer), scores, strict=True)]
    return head, _table([[*HEADS, *columns], *rows])


def _rows(answer: Answer) -> list[list[str]]:
    return [
        [one.decoder, str(one.rank), one.caption, f"{one.log_prob:.2f}", f"{one.probability:.2g}"]
        for one in answer.found
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """The rows, the heads first, as an HTML table."""
    heads, *others = [[html.escape(cell) for cell in row] for row in rows]
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in others]
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _plain(text: str) -> str:
    """The text as Markdown that shows it as it is."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+-.!|~$&" else c for c in text)


def _gradio() -> types.ModuleType:
    """The package Gradio, told not to call home."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError(MISSING) from error
    return gradio


@contextlib.contextmanager
def _port_reported(config: Config) -> Iterator[None]:
    """Reports a port or host that cannot be used."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--host={config.run.host} --port={config.run.port} cannot be used: the port is taken, or the "
            "address is not this machine's; name another --port"
        ) from error
