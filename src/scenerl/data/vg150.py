"""VG150: the scene graphs of Visual Genome in 150 object classes and 50 predicates, as the field's loaders have them.

On disk: ``VG-SGG-with-attri.h5`` (or ``VG-SGG.h5``), ``VG-SGG-dicts-with-attri.json`` (or ``VG-SGG-dicts.json``) and
``image_data.json`` in one folder; the images in ``VG_100K`` and ``VG_100K_2`` in it, or all in one of them.

The h5 file holds per image the first and last place of its boxes and relations (``img_to_first_box``,
``img_to_last_box``, ``img_to_first_rel``, ``img_to_last_rel``; -1 for none; the last one included) and its ``split``
(0 train, 2 test); per box its ``labels`` (from 1) and ``boxes_1024``, centre x, centre y, width and height where the
longer side of the image is 1024; per relation ``relationships`` (two places of boxes) and ``predicates`` (from 1).
``h5py`` is imported when a source is read.

Source: Xu et al. 2017 (arXiv 1701.02426) made the files; the splits are those of Neural Motifs (Zellers et al. 2018,
arXiv 1711.06640), ``num_val_im=5000``, ``filter_empty_rels=True``, ``filter_non_overlap=False``: images without boxes
or relations are left out everywhere, and the first 5,000 of the training images that are left are for validation. The
loaders of the field cut corners to whole numbers of the 1024 scale; here the division by two is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from scenerl.answers.elements import excerpt
from scenerl.data.arguments import path_and_settings
from scenerl.data.published import ImageFolders, choose_split, find_file, names_of
from scenerl.data.records import Record, build_example
from scenerl.errors import DataError
from scenerl.extras import require
from scenerl.json_files import iter_list, read_json

SPLITS = ("train", "val", "test")
NUM_VALIDATION = 5000
SCALE = 1024
CORRUPTED = frozenset((1592, 1722, 4616, 4617))
"""Image ids that image_data.json lists and the h5 file does not hold: their files were damaged when it was made."""

_GRAPHS = ("VG-SGG-with-attri.h5", "VG-SGG.h5")
_NAMES = ("VG-SGG-dicts-with-attri.json", "VG-SGG-dicts.json")
_IMAGE_FOLDERS = ("VG_100K", "VG_100K_2", "images/VG_100K", "images/VG_100K_2", "images")
_PER_IMAGE = ("split", "img_to_first_box", "img_to_last_box", "img_to_first_rel", "img_to_last_rel")
_PER_ELEMENT = {"labels": 1, "boxes_1024": 4, "relationships": 2, "predicates": 1}  # name to columns
EXPECTED_IMAGES = "a JSON list of images, each with image_id, width and height"


def read(argument: Path | str, split: str | None = None) -> Iterator[Record]:
    """Every image of a split as a record.

    Args:
        argument: the folder that holds the three files; after it ``num_validation=5000``: how many of the training
            images are for validation.
        split: ``train``, ``val`` or ``test``.

    Raises:
        DataError: a file is missing or not of the schema, or the files do not belong together.
    """
    folder, settings = path_and_settings(str(argument), "vg150", {"num_validation": NUM_VALIDATION})
    num_validation = settings["num_validation"]
    split = choose_split(split, SPLITS, f"vg150:{folder}")
    graphs, names, images = (find_file(folder, wanted) for wanted in (_GRAPHS, _NAMES, ("image_data.json",)))
    labels, predicates = _read_names(names)
    arrays = _read_arrays(graphs)
    sizes = [_id_and_size(row) for row in iter_list(images, EXPECTED_IMAGES) if not _is_corrupted(row)]
    if len(sizes) != len(arrays["split"]):
        raise DataError(
            f"{images} lists {len(sizes)} images ({len(CORRUPTED)} corrupted ones not counted), but {graphs} holds "
            f"{len(arrays['split'])}; these files do not belong together"
        )
    folders = ImageFolders(folder, _IMAGE_FOLDERS)
    for number in images_of(arrays, split, num_validation).tolist():
        where = f"{graphs}, image {number}"
        box, edge = (
            slice(arrays[f"img_to_first_{kind}"][number], arrays[f"img_to_last_{kind}"][number] + 1)
            for kind in ("box", "rel")
        )
        pairs_R2 = (arrays["relationships"][edge].astype(int) - int(box.start)).tolist()
        try:
            named = [labels[n] for n in arrays["labels"][box].ravel().tolist()]
            edges = [predicates[n] for n in arrays["predicates"][edge].ravel().tolist()]
        except KeyError as error:
            yield Record(where, None, (f"the class or predicate {error} has no name in {names}",))
            continue
        image_id, width, height = sizes[number]
        if not all(type(value) is int and value > 0 for value in sizes[number]):
            found = excerpt({"image_id": image_id, "width": width, "height": height})
            yield Record(where, None, (f"image_id, width and height must be whole numbers above 0, found {found}",))
            continue
        yield build_example(
            f"{where} (image_id {image_id})",
            image_id,
            (width, height),
            named,
            corners(arrays["boxes_1024"][box], width, height).tolist(),
            [(subject, name, object_) for (subject, object_), name in zip(pairs_R2, edges, strict=True)],
            image=folders.find(f"{image_id}.jpg"),
        )


def images_of(index: Mapping[str, np.ndarray], split: str, num_validation: int = NUM_VALIDATION) -> np.ndarray:
    """Places of the images of a split in the h5 file, rising.

    Args:
        index: ``split``, ``img_to_first_box`` and ``img_to_first_rel``, each with one number per image.
    """
    has_both = (index["img_to_first_box"] >= 0) & (index["img_to_first_rel"] >= 0)
    found = np.flatnonzero((index["split"] == (2 if split == "test" else 0)) & has_both)
    return {"test": found, "val": found[:num_validation], "train": found[num_validation:]}[split]


def corners(boxes_N4: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes of the 1024 scale as corners in pixels.

    An end that leaves the image by less than a unit of that scale does so by its rounding and is put on the edge.

    Args:
        boxes_N4: centre x, centre y, width, height where the longer side is 1024.
        width, height: of the image, in pixels.

    >>> corners(np.array([[512, 256, 1024, 513]]), 800, 400).tolist()
    [[0.0, 0.0, 800.0, 400.0]]
    """
    unit = max(width, height) / SCALE
    half = boxes_N4[:, 2:] / 2
    exact = np.hstack([boxes_N4[:, :2] - half, boxes_N4[:, :2] + half]) * unit
    inside = np.clip(exact, 0, [width, height, width, height])
    return np.where(np.abs(exact - inside) < unit, inside, exact)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the h5 file, each in its shape; all of them together are some 50 megabytes."""
    h5py = require("h5py", "vg150")
    try:
        with h5py.File(path, "r") as file:
            arrays = {name: file[name][:] for name in (*_PER_IMAGE, *_PER_ELEMENT) if name in file}
    except OSError as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({' '.join(str(error).split())[:200]})") from error
    num_images = len(arrays.get("split", ()))
    for name in (*_PER_IMAGE, *_PER_ELEMENT):
        shape = arrays[name].shape if name in arrays else None
        columns = _PER_ELEMENT.get(name)
        wanted = (num_images,) if columns is None else (shape[0], columns) if shape else None
        if shape is None or (shape != wanted and not (columns == 1 and len(shape) == 1)):
            expected = f"{num_images} numbers" if columns is None else f"rows of {columns}"
            raise DataError(f"{path}: {name!r} must hold {expected}, found {'nothing' if shape is None else shape}")
    for name in _PER_ELEMENT:
        last = arrays["img_to_last_box" if name in ("labels", "boxes_1024") else "img_to_last_rel"]
        if len(last) and last.max() >= len(arrays[name]):
            raise DataError(f"{path}: {name!r} ends before image {last.argmax()} has all of its entries")
    return arrays


def _read_names(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Numbers to names of the object classes and of the predicates."""
    value = read_json(path, "a JSON object with idx_to_label and idx_to_predicate")
    found = [value.get(key) if isinstance(value, dict) else None for key in ("idx_to_label", "idx_to_predicate")]
    return names_of(found[0], f"{path}: idx_to_label"), names_of(found[1], f"{path}: idx_to_predicate")


def _is_corrupted(row: object) -> bool:
    return isinstance(row, Mapping) and row.get("image_id") in CORRUPTED


def _id_and_size(row: object) -> tuple[object, object, object]:
    """Image id, width and height of an entry of image_data.json."""
    row = row if isinstance(row, Mapping) else {}
    return row.get("image_id"), row.get("width"), row.get("height")
