"""A user's own data: arrays in a file, or a folder of images."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from qevo.data.dataset import Parts, Split
from qevo.data.files import check_labels
from qevo.errors import QevoError

# What numpy raises for a file that is cut, encrypted, or says that it holds too much.
_DAMAGED = (
    *(OSError, ValueError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
_WIDE = (";16B", ";16L", ";16N")  # Pillow's words for 16 bits per channel
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


def read_npz(path: Path) -> Parts:
    """Read arrays from an ``.npz`` file.

    Arrays: ``images`` uint8 [n, H, W] or [n, H, W, C] and ``labels``, integers [n] from 0, each
    class at least once; optional ``test_images`` with ``test_labels``, of the same kind; optional
    ``classes``, one string per class.

    Raises:
      QevoError: where the file is damaged or an array is missing, unknown, or of another kind.
    """
    arrays = _arrays(path)
    names = arrays.get("classes", np.unique(arrays["labels"]))
    classes = tuple(str(name) for name in names.ravel())
    train = _npz_split(path, arrays, "", len(classes))
    if absent := sorted(set(range(len(classes))) - set(train.labels.tolist())):
        raise QevoError(
            f"{path}: expected labels 0 to {len(classes) - 1}, each at least once; "
            f"found no {absent[0]} ({classes[absent[0]]})"
        )
    if "test_images" not in arrays:
        return Parts(train, None, classes, f"arrays in {path}")
    test = _npz_split(path, arrays, "test_", len(classes))
    if test.images.shape[1:] != train.images.shape[1:]:
        raise QevoError(
            f"{path}: expected test_images of shape {list(train.images.shape[1:])}, as images, "
            f"found {list(test.images.shape[1:])}"
        )
    return Parts(train, test, classes, f"arrays in {path}")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise QevoError(f"{path}: expected an .npz file (zip of arrays), found something else")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except _DAMAGED as error:
        raise QevoError(f"{path}: expected a whole .npz file of plain arrays ({error})") from None
    if odd := [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]:
        raise QevoError(f"{path}: expected an .npz file of plain arrays; {odd[0]} is none")
    required, test = {"images", "labels"}, {"test_images", "test_labels"}
    if set(arrays) - {"classes"} not in (required, required | test):
        raise QevoError(
            f"{path}: expected arrays images and labels, optionally test_images with test_labels, "
            f"and classes; found {', '.join(sorted(arrays)) or 'none'}"
        )
    return arrays


def _npz_split(path: Path, arrays: Mapping[str, np.ndarray], prefix: str, classes: int) -> Split:
    images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise QevoError(
            f"{path}: expected {prefix}images uint8 [n, H, W] or [n, H, W, C], "
            f"found {images.dtype} {list(images.shape)}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise QevoError(
            f"{path}: expected {prefix}labels integers [{len(images)}], one per image, "
            f"found {labels.dtype} {list(labels.shape)}"
        )
    check_labels(labels, classes, f"{path}: {prefix}labels")
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))


def read_image_folder(path: Path) -> Parts:
    """Read one sub-folder of images per class, in order of name; Pillow decodes them.

    The class folders lie in `path` itself or in ``train`` and, optionally, ``test`` below it.
    Hidden files are passed over. Images are all grey (C = 1) or, where one has colour, all RGB; an
    alpha channel is dropped.

    Raises:
      QevoError: where the layout is another one, a file is not an 8-bit image, or two images differ
        in size. The message names the file.
    """
    inner = path / "train"
    root = inner if inner.is_dir() else path
    if root is inner and (others := {p.name for p in _folders(path)} - {"train", "test"}):
        raise QevoError(
            f"{path}: expected train and test only, found {', '.join(sorted(others))} beside them "
            "(validation images are drawn from train)"
        )
    classes = tuple(folder.name for folder in _folders(root))
    if len(classes) < 2:
        raise QevoError(
            f"{root}: expected one sub-folder of images per class, at least 2, "
            f"found {', '.join(classes) or 'none'}"
        )
    train_files = _image_files(root, classes)
    if empty := set(classes) - {file.parent.name for file in train_files}:
        raise QevoError(f"{root / min(empty)}: expected images ({' '.join(SUFFIXES)}), found none")

    test_root, test_files = path / "test", []
    if root is inner and test_root.is_dir():
        if unknown := {folder.name for folder in _folders(test_root)} - set(classes):
            raise QevoError(
                f"{test_root / min(unknown)}: expected the classes of {root}: {', '.join(classes)}"
            )
        if not (test_files := _image_files(test_root, classes)):
            raise QevoError(f"{test_root}: expected images in class folders, found none")

    images = _decoded([*train_files, *test_files])
    labels = np.array([classes.index(f.parent.name) for f in [*train_files, *test_files]], np.int32)
    n = len(train_files)
    test = Split(images[n:], labels[n:]) if test_files else None
    return Parts(Split(images[:n], labels[:n]), test, classes, f"images in {path}")


def read_unlabelled(path: Path) -> np.ndarray:
    """Images without labels, uint8 [n, H, W, C]: an ``.npy`` file, or a folder of image files.

    The array may be [n, H, W] too. Image files are taken in order of name, hidden ones passed over,
    and decoded as `read_image_folder` does.

    Raises:
      QevoError: where there is nothing, or something else. The message names the file.
    """
    if path.is_dir():
        if not (files := _image_files(path.parent, [path.name])):
            raise QevoError(f"{path}: expected images ({' '.join(SUFFIXES)}), found none")
        return _decoded(files)
    try:
        with path.open("rb") as file:
            images = np.load(file, allow_pickle=False)
    except _DAMAGED as error:
        raise QevoError(
            f"{path}: expected a folder of images, or uint8 [n, H, W, C] in an .npy file ({error})"
        ) from None
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim not in (3, 4)
        or not images.size
    ):
        found = f"{images.dtype} {list(images.shape)}" if hasattr(images, "dtype") else "an archive"
        advice = ": scale pixels back to 0..255" if "float" in found else ""
        raise QevoError(f"{path}: expected uint8 [n, H, W, C], found {found}{advice}")
    return images if images.ndim == 4 else images[..., None]


def is_unlabelled(path: Path) -> bool:
    """Whether a path holds images without labels: an ``.npy`` file, or a folder of files only."""
    if path.is_dir():
        return not _folders(path)
    return path.suffix == ".npy"


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _image_files(root: Path, classes: Sequence[str]) -> list[Path]:
    files = [
        file
        for name in classes
        if (root / name).is_dir()
        for file in sorted((root / name).iterdir())
        if not file.name.startswith(".")
    ]
    for file in files:
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise QevoError(f"{file}: expected an image file ({' '.join(SUFFIXES)})")
    return files


def _decoded(files: Sequence[Path]) -> np.ndarray:
    """uint8 [n, H, W, C] of all `files`, C = 1 where none has colour, else 3."""
    images: list[np.ndarray] = []
    for file in files:
        image = decode_image(file)
        if images and image.shape[:2] != images[0].shape[:2]:
            (height, width), (first_height, first_width) = image.shape[:2], images[0].shape[:2]
            raise QevoError(
                f"{file}: expected {first_width} x {first_height} pixels, as in {files[0]}, "
                f"found {width} x {height}: resize the images to one size first"
            )
        images.append(image)
    channels = max(image.shape[2] for image in images)
    return np.stack([np.repeat(image, channels // image.shape[2], axis=2) for image in images])


def decode_image(file: Path) -> np.ndarray:
    """An image file as uint8 [H, W, C], C = 1 where it is grey, else 3.

    Raises:
      QevoError: where it is no 8-bit image, or Pillow is missing. The message names the file.
    """
    Image = pillow(f"{file}: reading image files")
    try:
        with Image.open(file) as image:
            mode = image.mode
            if any(mark in str(tile[3]) for tile in image.tile for mark in _WIDE):
                mode += " of 16 bits"  # of which Pillow would take the upper 8
            if mode in ("1", "L", "LA"):
                return np.asarray(image.convert("L"))[..., None]
            if mode in ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
                return np.asarray(image.convert("RGBA").convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise QevoError(f"{file}: expected a whole image file, found {error}") from None
    raise QevoError(f"{file}: expected 8 bits per channel, grey or colour, found mode {mode}")


def pillow(task: str) -> ModuleType:
    """Pillow's module Image.

    Raises:
      QevoError: where Pillow is missing; the message begins with what needs it.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise QevoError(
            f"{task} needs Pillow: pip install -e '.[data]' in qevo's checkout"
        ) from None
    return Image
