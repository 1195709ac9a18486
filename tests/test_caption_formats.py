"""Captions files of every format: the same captions give the same images, and each mistake is told in one line."""

import dataclasses
import json

import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.listing import Listed, read_images, read_listing, read_results, read_scored

DOG = ('A dog, running; "fast" | far.', "Zwei Hünde\nlaufen.")
CAT = ("A cat sits.", "It's a black cat.")
# Of one line each, without what Flickr's files cannot hold.
PLAIN_DOG = ('"A dog", it runs.', "Zwei Hünde laufen.")

BY_ID = [Listed(3, "deep/a.jpg", DOG, "train"), Listed(16, "b.jpg", CAT, "val")]
BY_NAME = [Listed("b.jpg", "b.jpg", CAT), Listed("deep/a.jpg", "deep/a.jpg", DOG)]
PLAIN = [Listed("b.jpg", "b.jpg", CAT), Listed("deep/a.jpg", "deep/a.jpg", PLAIN_DOG)]
IDS = [Listed(3, "", DOG), Listed(16, "", CAT)]

COCO = {
    "images": [
        {"id": 16, "file_name": "b.jpg", "split": "dev"},
        {"id": 3, "file_name": "deep/a.jpg", "split": "restval"},
    ],
    "annotations": [{"image_id": i, "caption": c, "id": 9} for k in (0, 1) for i, c in ((3, DOG[k]), (16, CAT[k]))],
}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "deep",
            "filename": "a.jpg",
            "imgid": 0,
            "cocoid": 3,
            "split": "restval",
            "sentences": [{"raw": c, "tokens": ["a"], "sentid": 0} for c in DOG],
        },
        {
            "filename": "b.jpg",
            "imgid": 1,
            "cocoid": 16,
            "split": "val",
            "sentences": [{"tokens": c.split()} for c in CAT],
        },
    ],
}
OBJECTS = [
    {"image_id": 16, "file_name": "b.jpg", "captions": list(CAT), "split": "valid"},
    {"image_id": 3, "file_name": "deep/a.jpg", "captions": DOG[0], "split": "train"},
    {"image_id": 3, "file_name": "deep/a.jpg", "captions": [DOG[1]], "split": "Training"},
]
QUOTED = ['"A dog, running; ""fast"" | far."', '"Zwei Hünde\nlaufen."']


def lines(rows):
    return "\n".join(map(json.dumps, rows)) + "\n"


def table(delimiter, *rows):
    return "".join(delimiter.join(row) + "\n" for row in rows)


def captions_table(delimiter):
    return table(
        delimiter,
        ("id", "Image Name", "ignored", "caption", "split"),
        ("16", "b.jpg", "", CAT[0], "validation"),
        ("16", "b.jpg", "x", f'"{CAT[1]}"', "validation"),
        *(("3", "deep/a.jpg", "", caption, "train") for caption in QUOTED),
    )


FLICKR30K = table(
    "| ",
    ("image_name", "comment_number", "comment"),
    *((name, str(k), c) for name, of in (("deep/a.jpg", PLAIN_DOG), ("b.jpg", CAT)) for k, c in enumerate(of)),
)
FLICKR8K = table(
    "\t",
    *((f"{name}#{k}", c) for name, of in (("deep/a.jpg", PLAIN_DOG), ("b.jpg", CAT)) for k, c in enumerate(of)),
)
KAGGLE = table(",", ("image", "caption"), *(("b.jpg", c) for c in CAT), *(("deep/a.jpg", c) for c in QUOTED))
CLOTHO = table(
    ",", ("file_name", "caption_1", "caption_2", "caption_3"), ("b.jpg", *CAT, ""), ("deep/a.jpg", *QUOTED, '""')
)
FORMATS = {
    "coco": (json.dumps(COCO), BY_ID),
    "coco, indented": ("\n" + json.dumps(COCO, indent=2), BY_ID),
    "karpathy": (json.dumps(KARPATHY), BY_ID),
    "list": (json.dumps(OBJECTS), BY_ID),
    "lines": (lines(OBJECTS), BY_ID),
    "lines with blank ones": ("\n" + lines(OBJECTS).replace("\n", "\r\n\r\n"), BY_ID),
    "comma": (captions_table(","), BY_ID),
    "semicolon": (captions_table(";"), BY_ID),
    "tab": (captions_table("\t"), BY_ID),
    "blanks after commas": (captions_table(", "), BY_ID),
    "object": (json.dumps({"deep/a.jpg": DOG, "b.jpg": CAT}), BY_NAME),
    "object by id": (
        json.dumps({"16": CAT, "3": DOG}),
        [dataclasses.replace(i, file_name=str(i.image_id)) for i in IDS],
    ),
    "results": (json.dumps([{"image_id": i, "caption": c} for i, of in ((3, DOG), (16, CAT)) for c in of]), IDS),
    "list by name": (
        json.dumps([{"image": "deep/a.jpg", "caption": DOG}, {"image": "b.jpg", "caption": CAT}]),
        BY_NAME,
    ),
    "kaggle": (KAGGLE, BY_NAME),
    "clotho": (CLOTHO, BY_NAME),
    "lists in cells": (
        table(
            ",",
            ("filename", "raw"),
            *((n, '"' + json.dumps(of).replace('"', '""') + '"') for n, of in (("b.jpg", CAT), ("deep/a.jpg", DOG))),
        ),
        BY_NAME,
    ),
    "flickr30k": (FLICKR30K, PLAIN),
    "flickr8k": (FLICKR8K, PLAIN),
}


@pytest.fixture
def write(tmp_path):
    """Writes a captions file and returns its path."""

    def write_content(content, name="captions.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_content


@pytest.fixture
def refused(write):
    """Reads a file that must be refused in one line with a remedy; returns what is said of it."""

    def refuse(content, read=read_listing, name="captions.txt", **options):
        path = write(content, name)
        with pytest.raises(UserError) as caught:
            read(path, **options)
        message = str(caught.value)
        assert message.startswith(path) and message.isprintable() and "; " in message
        return message.removeprefix(path)

    return refuse


class TestEveryFormat:
    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("need_words", [True, False])
    def test_the_same_captions_give_the_same_images(self, write, name, need_words):
        content, images = FORMATS[name]
        assert read_listing(write(content), need_words=need_words) == images

    @pytest.mark.parametrize("name", FORMATS)
    def test_a_byte_order_mark_and_a_wrong_suffix_change_nothing(self, write, name):
        content, images = FORMATS[name]
        suffix = ".csv" if content.lstrip().startswith(("{", "[")) else ".json"
        assert read_listing(write(b"\xef\xbb\xbf" + content.encode(), f"c{suffix}")) == images

    @pytest.mark.parametrize("end", ["\r", "\r\n"])
    @pytest.mark.parametrize("name", ["flickr30k", "flickr8k", "clotho", "lines", "tab"])
    def test_line_ends_of_other_systems_are_line_ends(self, write, name, end):
        content, images = FORMATS[name]
        given = read_listing(write(content.replace("\n", end)))
        assert [(i.image_id, [c.replace(end, "\n") for c in i.captions]) for i in given] == [
            (i.image_id, list(i.captions)) for i in images
        ]

    @pytest.mark.parametrize("name", FORMATS)
    def test_a_caption_without_words_is_refused_or_left_out(self, refused, write, name):
        content = FORMATS[name][0].replace(CAT[0], "!")
        content = content.replace(json.dumps(CAT[0].split()), '["!"]')
        said = refused(content)
        assert "1 images have a caption without words" in said and "--skip_bad_captions" in said
        left = read_listing(write(content), skip_bad_captions=True)
        assert [i.captions for i in left if i.image_id in (16, "b.jpg")] == [CAT[1:]]

    @pytest.mark.parametrize("name", FORMATS)
    def test_images_are_listed_whatever_their_captions(self, write, name):
        content, images = FORMATS[name]
        assert read_images(write(content)) == images

    def test_images_without_any_captions_are_listed(self, write):
        path = write(json.dumps({"images": COCO["images"]}))
        assert read_images(path) == [dataclasses.replace(image, captions=()) for image in BY_ID]
        with pytest.raises(UserError, match="holds no captions; at least one"):
            read_listing(path, need_words=False)
        with pytest.raises(UserError, match="has no list 'annotations'"):
            read_listing(path)

    def test_lists_in_cells_are_those_of_json_and_of_python(self, write):
        def read(*cells):
            return read_listing(write(table("\t", ("image", "captions"), *((f"{k}", c) for k, c in enumerate(cells)))))

        assert read("['a dog', 'a cat']")[0].captions == ("a dog", "a cat")
        for cell in ("['a dog' 'a cat']", "[a dog]", "[1, 2]"):
            assert read(cell)[0].captions == (cell,)
        assert read("['a dog', 'a cat']", "a cow")[0].captions == ("['a dog', 'a cat']",)

    def test_separators_of_lines_within_captions_stay(self, write):
        caption = "a\u2028b\x85c\x0bd"
        assert read_listing(write(f"image,caption\na.jpg,{caption}\n"))[0].captions == (caption,)
        rows = json.dumps({"image": "a.jpg", "caption": caption}, ensure_ascii=False)
        assert read_listing(write(f"{rows}\n{rows}\n"))[0].captions == (caption, caption)

    def test_one_line_of_json_lines_is_a_row(self, write):
        assert read_listing(write('{"image": "a.jpg", "caption": "a dog"}\n')) == [Listed("a.jpg", "a.jpg", ("a dog",))]

    def test_marks_count_in_every_format(self, write, capsys):
        path = write("image,caption,is_rejected\na.jpg,a dog,True\na.jpg,a cat,False\n")
        assert read_listing(path)[0].captions == ("a dog", "a cat")
        assert read_listing(path, skip_bad_captions=True)[0].captions == ("a cat",)
        assert "1 marked is_rejected or is_precanned" in capsys.readouterr().err


class TestIds:
    @pytest.mark.parametrize(
        ("ids", "taken"),
        [
            (("3", "-16"), {3, -16}),
            (("3", "x"), {"3", "x"}),
            (("03", "16"), {"03", "16"}),
            (("1.0", "2"), {"1.0", "2"}),
        ],
    )
    def test_of_text_are_numbers_if_all_are_integers(self, write, ids, taken):
        for content in (
            table(",", ("image_id", "caption"), *((i, "a dog") for i in ids)),
            json.dumps(dict.fromkeys(ids, "a dog")),
        ):
            assert {i.image_id for i in read_listing(write(content))} == taken

    def test_of_names_that_look_like_numbers_stay_text(self, write):
        assert [i.image_id for i in read_listing(write("image,caption\n16,a dog\n"))] == ["16"]

    def test_of_karpathy_are_the_first_that_there_are(self, write):
        def read(**ids):
            image = {"filepath": "x", "filename": "a.jpg", "sentences": [{"raw": "a dog"}], **ids}
            return read_listing(write(json.dumps({"images": [image]})))[0].image_id

        assert read(cocoid=5, imgid=0) == 5 and read(imgid=0) == 0 and read() == "x/a.jpg"

    def test_that_number_captions_are_refused(self, refused):
        said = refused("id,image,caption\n0,a.jpg,a dog\n1,a.jpg,a cat\n")
        assert "1 images have several ids in the column 'id' (a.jpg); if it numbers captions" in said


class TestResults:
    def test_are_one_caption_an_image(self, write):
        rows = [{"image_id": 16, "caption": "a cat"}, {"image_id": 3, "caption": ""}]
        for content in ("image_id,caption\n16,a cat\n3,\n", '{"16": "a cat", "3": ""}', json.dumps(rows), lines(rows)):
            assert read_results(write(content)) == {16: "a cat", 3: ""}

    @pytest.mark.parametrize("name", FORMATS)
    def test_of_several_captions_are_refused(self, refused, name):
        assert "2 images have more than one caption" in refused(FORMATS[name][0], read_results)

    @pytest.mark.parametrize("references", [3, "3"])
    def test_of_text_meet_references_of_any_type(self, write, references):
        known = write(json.dumps([{"image_id": references, "caption": "a dog"}]), "r.json")
        for content in ("id,caption\n3,a dog\n", "image,caption\n3,a dog\n", '{"3": "a dog"}'):
            listed, results = read_scored(known, write(content))
            assert [i.image_id for i in listed] == [references] and results == {references: "a dog"}
            listed, results = read_scored(write(content), known)
            assert list(results) == [i.image_id for i in listed]

    def test_of_json_keep_their_types(self, write):
        known = write('[{"image_id": 3, "caption": "a dog"}]', "r.json")
        assert list(read_scored(known, write('[{"image_id": "3", "caption": "a dog"}]'))[1]) == ["3"]

    def test_by_file_name_meet_references_by_id(self, write):
        known = write(json.dumps(COCO), "r.json")
        for content in ("image,caption\ndeep/a.jpg,a dog\n", '[{"image": "deep/a.jpg", "caption": "a dog"}]'):
            assert read_scored(known, write(content))[1] == {3: "a dog"}

    def test_of_one_image_by_two_names_are_refused(self, write):
        known = write(json.dumps(COCO), "r.json")
        with pytest.raises(UserError, match=r"1 images have more than one caption \(3\); leave one"):
            read_scored(known, write("image,caption\ndeep/a.jpg,a dog\n3,a dog\n"))

    def test_of_text_do_not_guess_between_a_number_and_text(self, write):
        known = write(json.dumps([{"image_id": i, "caption": "a dog"} for i in (3, "3")]), "r.json")
        with pytest.raises(UserError, match=r'2 image ids come as a number and as text \(3, "3"\); write'):
            read_scored(known, write("image_id,caption\n3,a dog\n"))

    def test_whose_references_are_all_left_out_are_told_from_unknown_ones(self, write):
        path = write('{"a.jpg": "!", "b.jpg": "a dog"}')
        listed = read_listing(path, need_words=False, skip_bad_captions=True)
        assert [(i.image_id, i.captions) for i in listed] == [("a.jpg", ()), ("b.jpg", ("a dog",))]

    def test_rows_of_too_few_fields_are_refused_without_a_flag(self, refused):
        said = refused("image,caption\na.jpg\n", read_results)
        assert "too few or too many fields" in said and "--skip" not in said


FLICKR30K_ROW = FLICKR30K + "2199200615.jpg| 4   A dog runs across the grass .\n"


class TestBadInput:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty; a captions file is needed"),
            (b"\xef\xbb\xbf \n", "is empty"),
            (b"\x89PNG\r\n\x1a\n\0\0", "is a PNG image; "),
            (b"\xff\xd8\xff\xe0\0", "is a JPEG image; "),
            (b"PK\x03\x04\0", "is a ZIP archive or a spreadsheet; "),
            (b"\x1f\x8b\x08\0", "is a gzip archive; "),
            (KAGGLE.encode("utf-16"), "is text in UTF-16; a captions file is needed, as UTF-8 text; convert it: iconv"),
            (KAGGLE.encode("utf-32"), "is text in UTF-32"),
            (KAGGLE.encode("utf-16-le"), "holds NUL bytes (the first in line 1)"),
            (KAGGLE.encode("latin-1"), "is not text in UTF-8 (byte 0xfc in line 5)"),
            (b"\xef\xbb\xbfimage,caption\r\na.jpg,\xe9t\xe9\r\n", "is not text in UTF-8 (byte 0xe9 in line 2)"),
            (b"image,caption\na.jpg,a dog\0\n", "holds NUL bytes (the first in line 2)"),
            ("{", "is not JSON ("),
            ("{}", "is a JSON object with no keys, which is no captions file; needed is one of: Karpathy's"),
            ("[]", "holds no captions; at least one"),
            ('["a dog"]', "is a JSON list that holds 'a dog', which"),
            ('{"a": 1, "b": {}}', "is a JSON object with the keys a, b, which"),
            ('{"a.jpg": ["a dog", 5]}', "'a.jpg' of the JSON object is ['a dog', 5]; needed: text of whole"),
            ('{"a.jpg": "a dog", "b.jpg": 5}', "'b.jpg' of the JSON object is 5; needed: text"),
            ('{"a.jpg": "a dog", "a.jpg": "a cat"}', "1 keys come twice (a.jpg); give all captions"),
            ('{"a.jpg": []}', '1 images have no caption ("a.jpg"); remove those images'),
            ('{"\\ud800.jpg": "a dog"}', "1 keys hold half a character"),
            ('[{"picture": "a.jpg", "caption": "a dog"}]', "its columns (picture, caption) are no images (file_name, "),
            ('[{"image": 5, "caption": "a dog"}]', "'image' of rows[0] is 5; needed: text"),
            ('[{"image": "a.jpg", "caption": "a dog"}, {"image": "a.jpg"}]', "'caption' of rows[1] is missing"),
            ('{"image": "a.jpg", "caption": "a"}\n\n{"image": "b.jpg"}\n', "'caption' of line 3 is missing"),
            ('{"image": "a.jpg", "caption": "a"}\n{"image\n', "1 lines are not a JSON object (line 2)"),
            (lines([{**OBJECTS[0], "split": "eval"}]), "the split of line 1 is 'eval'; allowed: train, training,"),
            (json.dumps({"images": [{**KARPATHY["images"][0], "split": "x"}]}), "split of images[0] is 'x'; allowed"),
            (
                json.dumps({"images": [{"filename": "a", "sentences": "b"}]}),
                "'sentences' of images[0] is 'b'; needed: a",
            ),
            (
                json.dumps({"images": [{"filename": "a", "sentences": [{}]}]}),
                "'raw' of images[0]['sentences'][0] is mis",
            ),
            (json.dumps({"images": [{"filename": "a", "sentences": []}]}), '1 images have no caption ("a")'),
            (
                lines([OBJECTS[1], {**OBJECTS[2], "file_name": "c.jpg"}]),
                "ids come twice with different files (3); give",
            ),
            (lines([OBJECTS[1], {**OBJECTS[2], "split": "test"}]), "1 images are in several splits (3); put each"),
            ("a.jpg,a dog\nb.jpg,a cat\n", "its columns (a.jpg, a dog) are no images (file_name, filename, image,"),
            ("A dog runs.\n", "its columns (A dog runs.) are no images ("),
            ("picture,caption\na.jpg,a dog\n", "its columns (picture, caption) are no images (file_name,"),
            ("image;words\na.jpg;a dog\n", "its columns (image, words) are no captions (caption, captions, comment,"),
            ("image,caption,caption\na.jpg,a,b\n", "1 columns come twice (caption); leave one"),
            ("image,caption\n", "has a header, but no rows below it; at least one"),
            ("image,caption\n\n \n", "has a header, but no rows below it"),
            ("image,caption\na.jpg,\n", '1 images have a caption without words ("a.jpg")'),
            ("image,caption\n,a dog\n", "1 rows name no image in the column 'image' (line 2); fill it in"),
            ("image,caption_1,caption_2\na.jpg,,\n", '1 images have no caption ("a.jpg")'),
            (
                "image,caption\na.jpg,a dog, running\nb.jpg\n",
                "(line 2: 3 fields in place of 2, line 3: 1 fields in place of 2); put",
            ),
            ("image,caption\na.jpg,a\r\n\nb.jpg\n", "too few or too many fields (line 4: 1 fields in place of 2)"),
            (
                'image,caption\na.jpg,"a dog\nb.jpg,a cat\n',
                "line 2 cannot be split into fields (unexpected end of data)",
            ),
            ('image,caption\na.jpg,"' + "a dog\n" * 22_000, "line 2 cannot be split into fields (field larger than"),
            ('image\tcaption\na.jpg\t"a" dog\n', "cannot be split into fields ('\\t' expected after"),
            ('image,caption\na.jpg,"a" dog\n', "line 2 cannot be split into fields (',' expected after '\"')"),
            (f"image,caption\na.jpg,{'dog ' * 2501}\n", "1 images have a caption of over 10,000 characters"),
            ("image,caption,split\na.jpg,a dog,\n", "the split of line 2 is ''; allowed: train,"),
            ("id,image,caption\n1,a.jpg,a dog\n1,b.jpg,a dog\n", "1 image ids come twice with different files (1)"),
            (FLICKR30K_ROW, "1 rows have too few or too many fields (line 6: 2 fields in place of 3); put fields"),
            (FLICKR8K + "b.jpg a cat\n", "lines are not a file name, #, a number, a tab and a caption (line 5); "),
        ],
    )
    def test_is_told_in_one_line(self, refused, content, said):
        assert said in refused(content)

    def test_is_told_of_files_that_are_not_there(self, tmp_path):
        for read in (read_listing, read_results):
            with pytest.raises(UserError, match=r"none.csv cannot be read \(No such file or directory\); a captions f"):
                read(tmp_path / "none.csv")
            with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); a captions"):
                read(tmp_path)
            with pytest.raises(UserError, match=r"cannot be read \(embedded null byte\); a captions"):
                read("a\0.csv")

    def test_of_a_suffix_that_promises_json(self, refused):
        assert "is not JSON (" in refused("picture,caption\na.jpg,a dog\n", name="captions.json")

    @pytest.mark.parametrize("content", [FLICKR30K_ROW, FLICKR8K + "b.jpg a cat\n"])
    def test_of_single_rows_is_left_out_if_asked(self, write, capsys, content):
        assert read_listing(write(content), skip_bad_captions=True) == PLAIN
        assert "skipping 1 of 5 rows of" in capsys.readouterr().err
