"""The page of `--mode=demo`, made with Gradio: an image in, captions and scores out."""

import contextlib
import os
import types
from collections.abc import Iterator

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
        print(f"demo:        http://{config.run.host}:{config.run.port} (Ctrl-C stops it)", flush=True)
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
            )


def build(gradio: types.ModuleType, answerer: Answerer):
    """Returns the page as gradio.Blocks."""
    with gradio.Blocks(title="spidercap", analytics_enabled=False) as page:
        gradio.Markdown("# Captions of an image")
        with gradio.Row():
            with gradio.Column():
                image = gradio.Image(type="filepath", sources=["upload", "clipboard"], label="Drop or paste an image")
                # Gradio would open the file itself, and fail where the model tells why it refuses it.
                image.preprocess = lambda payload: payload and payload.path
                references = gradio.Textbox(label="References, one per line (optional)", lines=4)
                button = gradio.Button("Caption and score", variant="primary")
            with gradio.Column(scale=2):
                headline = gradio.Markdown("Captions appear here.", elem_id="headline")
                table = gradio.Dataframe(headers=[*HEADS], interactive=False, wrap=True, label="Captions")
                gradio.Markdown(NOTES)

        def show(path: str | None, text: str):
            head, rows = shown(answerer, path, text)
            return head, gradio.Dataframe(headers=rows[0], value=rows[1:])

        gradio.on(
            [image.change, button.click],
            show,
            inputs=[image, references],
            outputs=[headline, table],
            api_visibility="private",
        )
    return page


def shown(answerer: Answerer, path: str | None, references: str) -> tuple[str, list[list[str]]]:
    """Returns the text above the table, as Markdown, and the table with its heads."""
    if not path:
        return "Captions appear here.", [[*HEADS]]
    answer = answerer.answer(path)
    if answer.refusal:
        return f"**Refused.** {_plain(answer.refusal)} Give a whole JPEG, PNG, GIF, BMP or WebP image.", [[*HEADS]]
    lines = [line for line in references.splitlines() if line.strip()]
    best = f"## {_plain(answer.found[0].caption) or '(the empty caption)'}\n\n{answer.summary()}"
    if not lines:
        return best, [[*HEADS], *_rows(answer)]
    try:
        scores = answerer.scores(answer, lines)
    except UserError as error:
        return f"{best}\n\n**No scores:** {_plain(str(error))}", [[*HEADS], *_rows(answer)]
    columns = answerer.columns()
    rows = [[*row, *(_score(of[name]) for name in columns)] for row, of in zip(_rows(answer), scores, strict=True)]
    return best, [[*HEADS, *columns], *rows]


def _rows(answer: Answer) -> list[list[str]]:
    return [
        [one.decoder, str(one.rank), one.caption, f"{one.log_prob:.2f}", f"{one.probability:.2g}"]
        for one in answer.found
    ]


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
            f"--host={config.run.host} --port={config.run.port} cannot be used ({error}); name another --port"
        ) from error
