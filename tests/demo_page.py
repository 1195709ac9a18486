"""The page of --mode=demo in Chromium, for test_demo_page.py: `python -m tests.demo_page CHROMIUM FOLDER`.

In a process of its own, because Gradio and Playwright leave event loops open, which is an error in tests. It serves the
page about a model of one colour, and prints as JSON what a person reads after each deed, and every address that was
asked beside the page's own.
"""

import base64
import json
import pathlib
import sys

import gradio
import tensorflow as tf
from playwright.sync_api import Page, sync_playwright

from spidercap.pipeline.demo import page as demo
from spidercap.pipeline.demo.answers import BEAM, GREEDY, Answerer

# Chromium runs as root in containers, where its sandbox cannot start.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PATIENCE = 30_000  # milliseconds
DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: "image/jpeg"}));
  return transfer;
}"""


def signature(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    """A model's answer: it tells red images from others, and refuses what is no JPEG."""
    encoded = image_bytes.numpy()[0]
    if not encoded.startswith(b"\xff\xd8"):
        caption, error = "", "is no image"
    else:
        red, _, blue = tf.reduce_mean(tf.cast(tf.io.decode_jpeg(encoded), tf.float32), [0, 1]).numpy()
        caption, error = "a red wall" if red > blue else "a blue wall", ""
    log_prob = tf.constant([0.0 if error else -1.5])
    found = {"caption": tf.constant([caption]), "log_prob": log_prob, "error": tf.constant([error])}
    return found | {"captions": tf.constant([[caption]]), "log_probs": log_prob[:, None]}


def drop(page: Page, file: pathlib.Path) -> None:
    """Drops a file on the page, as a person does."""
    data = base64.b64encode(file.read_bytes()).decode()
    transfer = page.evaluate_handle(DROP, [data, file.name])
    page.locator("button:has-text('Drop')").first.dispatch_event("drop", {"dataTransfer": transfer})


def read(page: Page, element: str, text: str) -> str:
    """Waits until an element holds a text, and returns all that it holds."""
    page.locator(element, has_text=text).first.wait_for(timeout=PATIENCE)
    return page.locator(element).first.inner_text()


def visit(page: Page, folder: pathlib.Path) -> dict[str, str]:
    """Returns what is read after each deed."""
    seen = {"empty": read(page, "#headline", demo.EMPTY)}
    drop(page, folder / "red.jpg")
    seen["dropped"], seen["table"] = read(page, "#headline", "wall"), read(page, "#captions", "greedy")
    page.locator("textarea").first.fill("a red wall")
    page.get_by_role("button", name="Caption and score").click()
    seen["scored"] = read(page, "#captions", "BLEU-1")
    page.get_by_label("Clear").or_(page.get_by_label("Remove Image")).first.click()
    seen["cleared"] = read(page, "#headline", demo.EMPTY)
    drop(page, folder / "bad.jpg")
    seen["refused"], seen["table after it"] = read(page, "#headline", "Refused"), page.locator("#captions").inner_text()
    return seen


def main(chromium: str, folder: pathlib.Path) -> None:
    """Serves the page, visits it and prints what was seen."""
    built = demo.build(gradio, Answerer({GREEDY: signature, BEAM: signature}, {}))
    _, address, _ = built.launch(prevent_thread_lock=True, quiet=True, share=False)
    outside = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        own = (address, "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or outside.append(request.url))
        page.goto(address, timeout=PATIENCE)
        seen = visit(page, folder)
        browser.close()
    built.close()
    print(json.dumps(seen | {"outside": outside}))


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
