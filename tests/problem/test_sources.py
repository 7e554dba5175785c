"""Labelled images are read as they lie on a disk: in every way the same numbers; errors say which file and row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.problem.images import Images, load_images, read_images

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
NAMES = np.array(["cat", "dog", "eel"])[LABELS]
FIRST = (1, 3, 4, 5)
WANTED = (PIXELS.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)).reshape(6, *FIRST)


def pictures(folder: Path, pixels: NDArray[np.uint8], paths: list[str]) -> Path:
    image = pytest.importorskip("PIL.Image")
    for path, array in zip(paths, pixels, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(array).save(folder / path)
    return folder


def same(data: Images) -> None:
    assert data.images.dtype == np.float32
    np.testing.assert_array_equal(data.images, WANTED)
    np.testing.assert_array_equal(data.labels, LABELS)


PATHS = [f"{name}/{i}.png" for i, name in enumerate(NAMES)]
BY_NAME = np.argsort(PATHS)


def test_a_folder_of_pictures_in_folders_of_classes(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data", PIXELS, PATHS)
    data = load_images(folder, FIRST, 3)
    np.testing.assert_array_equal(data.images, WANTED[BY_NAME])
    np.testing.assert_array_equal(data.labels, LABELS[BY_NAME])
    assert "0 cat, 1 dog, 2 eel" in data.notes[0]
    assert data.reading == {"layout": "nhwc"}
    np.testing.assert_array_equal(read_images(folder, None, data.reading).images[:, None], data.images)
    same_order = load_images(folder, (4, 5, 3), 3)
    np.testing.assert_array_equal(same_order.images.transpose(0, 3, 1, 2), data.images[:, 0])
    other = load_images(folder, FIRST, 3, names=["eel", "dog", "cat"])
    np.testing.assert_array_equal(other.labels, 2 - data.labels)
    assert not other.notes


def test_numbers_as_names_of_folders_are_classes(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data", PIXELS, [f"{10 - label}/{i}.PNG" for i, label in enumerate(LABELS)])
    data = load_images(folder, FIRST, 11)
    assert data.labels.tolist() == [10, 10, 8, 8, 9, 9]  # in the order of paths, with the numbers as they are


@pytest.mark.parametrize("header", ["", "image,label\n", "id;what;class\n"])
@pytest.mark.parametrize("written", ["name", "stem", "path"])
def test_a_table_of_labels_gives_the_order(tmp_path: Path, header: str, written: str) -> None:
    folder = pictures(tmp_path / "data", PIXELS, [f"sub/{i}.png" for i in range(6)])
    mark, more = (";", ["z"]) if ";" in header else (",", [])
    form = {"name": "{}.png", "stem": "{}", "path": "sub/{}.png"}[written]
    if written == "stem":
        form = "sub/{}"
    rows = [mark.join([form.format(i), *more, str(LABELS[i])]) for i in (5, 4, 3, 2, 1, 0)]
    (tmp_path / "labels.csv").write_text(header + "\n".join(rows) + "\n")
    data = load_images(folder, FIRST, 3, labels=tmp_path / "labels.csv")
    np.testing.assert_array_equal(data.images, WANTED[::-1])
    np.testing.assert_array_equal(data.labels, LABELS[::-1])
    (tmp_path / "labels.csv").rename(folder / "labels.csv")
    np.testing.assert_array_equal(load_images(folder, FIRST, 3).labels, LABELS[::-1])


@pytest.mark.parametrize(
    "text",
    [
        "label,file\n0,1.png\n2,0.png\n",  # labels that are names of files, too
        "0.png,2\n1.png,0\n",
        "./0.png,2\n.\\1.png,0\n",
        "what,x\n0.png,2.0\n1.png,0.0\n",
    ],
)
def test_labels_are_not_taken_for_files(tmp_path: Path, text: str) -> None:
    folder = pictures(tmp_path / "data", PIXELS, [f"{i}.png" for i in range(6)])
    table(text)(folder)
    data = load_images(folder, FIRST, 3)
    assert dict(zip((1, 0) if "label" in text else (0, 1), data.labels.tolist(), strict=True)) == {0: 2, 1: 0}
    assert not data.notes


def test_grey_pictures_and_colours_that_are_grey(tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    one = load_images(pictures(tmp_path / "one", grey, PATHS), (1, 4, 5), 3)
    three = load_images(pictures(tmp_path / "three", np.repeat(grey[..., None], 3, 3), PATHS), (1, 4, 5), 3)
    wide = load_images(tmp_path / "one", FIRST, 3)
    np.testing.assert_array_equal(one.images, three.images)
    np.testing.assert_array_equal(wide.images[:, 0], np.repeat(one.images, 3, 1))
    assert (three.reading, wide.reading) == ({"channels": 1}, {"channels": 3, "layout": "nhwc"})


def write_npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize(
    "labels",
    [
        ONE_HOT,
        ONE_HOT.astype(bool),
        ONE_HOT.astype(np.uint8),
        NAMES,
        LABELS.astype("U1"),
        LABELS[:, None],
        LABELS.astype(">f4"),
    ],
)
@pytest.mark.parametrize("called", [("images", "labels"), ("x_test", "y_test"), ("X", "y")])
def test_arrays_by_usual_names_with_labels_of_any_kind(
    tmp_path: Path, labels: NDArray[Any], called: tuple[str, str]
) -> None:
    same(load_images(write_npz(tmp_path, **{called[0]: WANTED, called[1]: labels}), FIRST, 3))


@pytest.mark.parametrize("kind", [">f4", ">f8", "<f2", ">f2"])
def test_floats_of_any_kind_in_arrays(tmp_path: Path, kind: str) -> None:
    given = WANTED.astype(kind)
    data = load_images(write_npz(tmp_path, images=given, labels=LABELS), FIRST, 3)
    np.testing.assert_array_equal(data.images, given.astype(np.float32))


def test_an_array_with_its_labels_beside_it_or_in_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x_test.npy", WANTED)
    np.save(tmp_path / "y_test.npy", LABELS)
    data = load_images(tmp_path / "x_test.npy", FIRST, 3)
    same(data)
    assert "y_test.npy" in data.notes[0]
    (tmp_path / "y_test.npy").rename(tmp_path / "other.npy")
    with pytest.raises(InputError, match="no labels beside it"):
        load_images(tmp_path / "x_test.npy", FIRST, 3)
    same(load_images(tmp_path / "x_test.npy", FIRST, 3, labels=tmp_path / "other.npy"))
    for text in ("0\n1\n2\n0\n1\n2\n", "class\ncat\ndog\neel\ncat\ndog\neel\n", "id,label\n" + "a,0\nb,1\nc,2\n" * 2):
        (tmp_path / "labels.csv").write_text(text)
        same(load_images(tmp_path / "x_test.npy", FIRST, 3, labels=tmp_path / "labels.csv"))


def right(images: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    """A network that knows the images."""
    known = {WANTED[i].tobytes(): LABELS[i] for i in range(6)}
    return sum(known.get(x.tobytes(), -1) == y for x, y in zip(images, labels, strict=True))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_layout_is_found_by_trying_the_labels(tmp_path: Path, layout: str, flat: bool) -> None:
    images = WANTED[:, 0] if layout == "nchw" else WANTED[:, 0].transpose(0, 2, 3, 1)
    path = write_npz(tmp_path, images=images.reshape(6, -1) if flat else images, labels=LABELS)
    data = load_images(path, FIRST, 3, agree=right)
    same(data)
    same(load_images(path, FIRST, 3, layout=layout))
    asked = flat or layout == "nhwc"
    assert [f"layout {layout}: the network classifies 6 of 6" in note for note in data.notes] == [True] * asked
    if asked:
        with pytest.raises(InputError, match="say with --layout"):
            load_images(path, FIRST, 3)
        with pytest.raises(InputError, match="of 6 items the network classifies as labelled 0 with"):
            load_images(path, FIRST, 3, agree=lambda images, labels: 0)


ROWS = np.round(np.random.default_rng(1).normal(size=(6, 4)), 3)


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_table_of_features_with_a_header(tmp_path: Path, place: int) -> None:
    header, rows = [f"f{j}" for j in range(4)], [list(map(str, row)) for row in ROWS]
    header.insert(place, "species")
    for row, name in zip(rows, NAMES, strict=True):
        row.insert(place, name)
    path = csv(tmp_path / "data.csv", "\n".join(",".join(row) for row in [header, *rows]))
    data = load_images(path, (1, 4), 3, labels="species")
    np.testing.assert_array_equal(data.images[:, 0], ROWS.astype(np.float32))
    np.testing.assert_array_equal(data.labels, LABELS)
    with pytest.raises(InputError, match="call one of them `label`"):
        load_images(path, (1, 4), 3)
    csv(path, path.read_text().replace("species", "Label"))
    np.testing.assert_array_equal(load_images(path, (1, 4), 3).labels, LABELS)


def test_a_table_without_a_header_is_tried(tmp_path: Path) -> None:
    """Both ends may be labels: the one that the network agrees with is."""
    whole = np.column_stack([LABELS[::-1], ROWS[:, :3], LABELS])
    lines = [",".join([str(int(row[0])), *map(str, row[1:4]), str(int(row[4]))]) for row in whole]
    path = csv(tmp_path / "data.csv", "\n".join(lines))
    first, last = whole[:, 1:].astype(np.float32), whole[:, :4].astype(np.float32)
    for wanted, column, labels in ((first, 0, LABELS[::-1]), (last, 4, LABELS)):
        agree = lambda x, y, w=wanted: 6 * bool((x.reshape(6, -1) == w).all())  # noqa: E731
        data = load_images(path, (1, 4), 3, agree=agree)
        np.testing.assert_array_equal(data.labels, labels)
        np.testing.assert_array_equal(data.images[:, 0], wanted)
        assert data.reading == {"column": column}
        np.testing.assert_array_equal(read_images(path, None, data.reading).images, wanted)
    with pytest.raises(InputError, match="give it a header"):
        load_images(path, (1, 4), 3)


def broken(folder: Path) -> None:
    (folder / "cat" / "0.png").write_bytes(b"\x89PNG nothing")


def transparent(folder: Path) -> None:
    pictures(folder, np.full((1, 4, 5, 4), 100, np.uint8), ["cat/0.png"])


def other_size(folder: Path) -> None:
    pictures(folder, np.zeros((1, 5, 5, 3), np.uint8), ["dog/1.png"])


def nowhere(folder: Path) -> None:
    pictures(folder, PIXELS[:1], ["9.png"])


def table(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "labels.csv").write_text(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (broken, "cat/0.png: is not a picture"),
        (transparent, "cat/0.png: is transparent"),
        (other_size, "dog/1.png: is 5 x 5 pixels, 0.png is 4 x 5"),
        (nowhere, "9.png: has no label"),
        (table("file,label\n0.png,0\n8.png,1\n"), "labels.csv, line 3: '8.png' is not a file"),
        (table("file,label\n0.png,0\n0.png,1\n"), "labels.csv, line 3: '0.png' is there twice"),
        (table("file,label\n0.png,0\n1.png\n"), "labels.csv, line 3: has 1 columns"),
        (table("file,label\n0.png,0\n\n1.png,7\n"), "label 7 of dog/1.png is not a class 0 to 2"),
        (table("file,label\n0.png,-1\n"), "label -1 of cat/0.png is negative"),
        (table("9.png,0\n1.png,1\n"), "labels.csv, line 1: '9.png' is not a file"),
        (table("../other/0.png,cat\n1.png,dog\n"), "line 1: '../other/0.png' is not a file"),
        (table("0.png,0.5\n1.png,1\n"), "label '0.5' of cat/0.png is no whole number"),
        (table("0.png,1\n1.png,dog\n"), "label '1' of cat/0.png is a number among names"),
        (table("a,b,c\n0.png,1,2\n"), "call one of them `label`"),
        (table("\n"), "labels.csv: there are no rows"),
    ],
)
def test_errors_in_folders_name_the_file_and_row(tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    folder = pictures(tmp_path / "data", PIXELS, PATHS)
    change(folder)
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        load_images(folder, FIRST, 3)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c,d,label\n1,2,3,4,0\n1,2,x,4,0\n", "data.csv, line 3, column 3 (c): 'x' is not a finite number"),
        ("a,b,c,d,label\n1,2,3,4,0\n1,2,1e40,4,0\n", "line 3, column 3 (c): '1e40' is not a finite number"),
        ("a,b,c,d,label\n1,2,3,4,0\n1,2,3,0\n", "line 3: has 4 columns, the first row 5"),
        ("a,b,c,d,label\n1,2,3,4,3\n", "label 3 of line 2 is not a class 0 to 2"),
        ("a,b,label\n1,2,1\n", "do not fit the network's input [1, 4]"),
        ("a,b,c,d,label\n1,2,3,4,cat\n", "tell of 1 classes, the network of 3"),
        ("", "no rows"),
        ("a,b,c,d,label\n", "no rows below the names"),
    ],
)
def test_errors_in_tables_name_the_row(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        load_images(csv(tmp_path / "data.csv", text), (1, 4), 3)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.ones((6, 3)), "label of image 0 is not one-hot"),
        (ONE_HOT[:, :2], "not one-hot"),
        (np.eye(4)[LABELS], "tell of 4 classes, the network of 3"),
        (LABELS.astype("U1")[:, None], "list of integers"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, labels: NDArray[Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_images(write_npz(tmp_path, images=WANTED, labels=labels), FIRST, 3)


def test_an_unknown_name_of_a_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label 'cat' of image 0 is not one of the classes dog, eel"):
        load_images(write_npz(tmp_path, images=WANTED, labels=NAMES), FIRST, 3, names=["dog", "eel"])
