"""The data set that comes with qevo: a subset of Fashion-MNIST, under its MIT licence."""

from pathlib import Path

from qevo.data.dataset import Parts
from qevo.data.files import read_idx_folder
from qevo.data.known import KNOWN
from qevo.errors import QevoError

NAME = "fashion_mnist_small"
FOLDER = Path(__file__).parent / NAME


def read() -> Parts:
    """Read the 10,000 training and 2,000 test images, 1,000 and 200 of each class.

    Raises:
      QevoError: where the installed files are damaged or gone.
    """
    parts = read_idx_folder(FOLDER, KNOWN["fashion_mnist"])
    if parts is None:
        raise QevoError(f"{FOLDER}: the packaged data is gone; reinstall qevo")
    source = "packaged subset of Fashion-MNIST (MIT): 10,000 of train, 2,000 of test"
    return Parts(parts.train, parts.test, parts.classes, source)
