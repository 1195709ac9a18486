"""The exported model in TensorFlow's C library, and how a load of callers is judged."""

import pytest
import tensorflow as tf

from tests import served_model, serving_load

NAMES = ("caption", "log_prob")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return served_model.make_model(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def images():
    return [served_model.image(i) for i in range(6)] + [served_model.image(6, encode=tf.io.encode_png)]


@pytest.fixture(scope="module")
def expected(model, images):
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]
    found = serve(image_bytes=tf.constant(images))
    captions = [caption.decode() for caption in found["caption"].numpy()]
    assert len(set(captions)) > 2
    return captions, found["log_prob"].numpy().tolist()


@pytest.mark.skipif(not served_model.LIBRARY.is_file(), reason=f"this TensorFlow has no {served_model.LIBRARY.name}")
def test_the_c_library_alone_serves_it(model, images, expected, tmp_path):
    found = served_model.by_c_library(model, images, NAMES, tmp_path)
    assert found["caption"] == expected[0]
    assert found["log_prob"] == pytest.approx(expected[1], abs=1e-4)


def test_bad_images_among_those_of_many_callers_hurt_nobody(model, images, expected):
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]
    good, bad = dict(zip(images, expected[0], strict=True)), served_model.bad_images()
    load = serving_load.run(served_model.asking(serve), good, bad, callers=8, seconds=3, hostile=0.5)
    assert load.refused > 5 and load.wrong == []


class TestLoad:
    """A load finds what is wrong with a server."""

    GOOD, BAD = {b"a": "a dog", b"b": "a cat"}, {b"?": "is no image"}

    def run(self, ask):
        return serving_load.run(ask, self.GOOD, self.BAD, callers=4, seconds=0.3)

    def right(self, images):
        return [self.GOOD.get(i, "") for i in images], [self.BAD.get(i, "") for i in images]

    def test_a_right_server_has_no_fault(self):
        load = self.run(self.right)
        assert load.requests > 20 and 0 < load.refused < load.images and not load.wrong
        assert load.faults() == []

    def test_a_wrong_caption_a_lost_row_and_an_error_are_told(self):
        def raises(images):
            raise OSError("gone")

        def mixed(images):
            captions, errors = self.right(images)
            return captions[::-1], errors

        for ask, fault in (
            (lambda images: ([""] * len(images), [""] * len(images)), "instead of"),
            (mixed, "instead of"),
            (lambda images: (self.right(images)[0][1:], self.right(images)[1][1:]), "rows for"),
            (raises, "OSError: gone"),
        ):
            assert fault in self.run(ask).faults()[0]

    def test_growing_memory_is_told(self):
        load = serving_load.Load(images=10, refused=1, memory=[100, 500, 500, 500, 520, 600])
        assert load.faults() == ["memory grew from 500 to 600 MiB"]
        assert serving_load.Load(images=10, refused=1, memory=[100, 500, 510, 500, 510, 500]).faults() == []
