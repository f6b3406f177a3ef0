"""The data sets that have a name: image shapes and class names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What is known of a named data set before a file of it is read."""

    shape: tuple[int, int, int]  # H, W, C
    classes: tuple[str, ...]  # in label order


DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

KNOWN = {
    "mnist": Known((28, 28, 1), DIGITS),
    "fashion_mnist": Known((28, 28, 1), CLOTHES),
    "cifar10": Known((32, 32, 3), CIFAR10),
}
