"""The arrays of a checkpoint, fitted to the variables of a float network."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from qevo.errors import QevoError
from qevo.nets.float_numerics import Float, multiply
from qevo.nets.numerics import Product

Layout = Literal["torch", "flax"]
Names = Mapping[str, str] | Sequence[str]  # rules, or "in order"

_SHOWN = 8  # lines of one kind of problem
_ROLES = {  # by the last part of a name
    "weight": "weight",
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "running_mean": "mean",
    "mean": "mean",
    "running_var": "var",
    "var": "var",
}
_PRODUCT_KEYS = {"weight": "kernel", "bias": "bias"}
_NORM_KEYS = {"weight": "norm/scale", "bias": "norm/bias", "mean": "norm/mean", "var": "norm/var"}
_STATISTICS = ("/norm/mean", "/norm/var")
_HINT = """\
  rules in names pair layers or arrays with ours, such as "fc=logits" or
  "features.*.weight=params/conv_*/kernel", or leave them out, "aux.*="; names="in order" pairs
  layers in the order of the file"""
_FOLDED = """\
  there is no batch norm among these arrays, as in an exported ONNX model, which has folded each
  into the convolution before it: a module whose layers have batch_norm=False fits such arrays"""

_Problems = dict[str, list[str]]  # by kind


def fit_arrays(
    arrays: Mapping[str, np.ndarray],
    module: nn.Module,
    image_shape: tuple[int, int, int],
    names: Names = (),
    *,
    layout: Layout | None = None,
    source: str = "the checkpoint",
) -> dict[str, Any]:
    """The variables of a float network from the arrays of a checkpoint.

    Rules "THEIRS=OURS" pair arrays with variables; the first that matches counts. THEIRS is the
    name of an array, or of a layer (the name without its last part); a ``*`` in it stands for any
    text. OURS is a variable ("params/conv_0/kernel") or a layer ("conv_0"), each ``*`` the text of
    the same one in THEIRS; an empty OURS leaves arrays out. Where no rule matches, a name must be
    ours. "." counts as "/", "params/" and "batch_stats/" need not be there, and the last part may
    be torch's ("weight", "running_mean").

    ``names="in order"`` pairs convolutions and dense layers, and batch norms, with the network's in
    the order of the file, or in natural order of the names if the file is sorted by them. So do no
    rules where no name is ours.

    Torch's kernels OIHW become HWIO and ``[out, in]`` become ``[in, out]``, whose rows follow H, W,
    C instead of C, H, W where the layer reads flattened images. The bias of a convolution in front
    of a batch norm is absorbed into the mean. Batch norms are taken to have the epsilon 1e-5, as
    torch and Flax set it; ``num_batches_tracked`` is left out.

    Args:
      arrays: by name, as `read_arrays` gives them.
      module: the architecture.
      image_shape: ``(H, W, C)``.
      names: rules, as strings or as a mapping of THEIRS to OURS; or "in order".
      layout: of the kernels; by default the one that fits more of them, or if both fit as many, the
        one that goes with their names ("weight": torch, "kernel": flax).
      source: of the arrays, for errors.

    Returns:
      ``params`` and, where the network normalises, ``batch_stats``; float32.

    Raises:
      QevoError: a rule that cannot be read. Or, listed together: variables without an array or with
        several, arrays without a variable, of another shape, not floats or not finite, rules that
        match nothing, and kernels whose layout nothing decides.
    """
    slots = _slots(module, image_shape)
    entries = _entries(arrays)
    rules = [] if names == "in order" else _rules(names)
    pairs = {name: _by_name(entry, rules, slots) for name, entry in entries.items()}
    in_order = names == "in order" or not (rules or slots.keys() & pairs.values())
    if in_order:
        pairs = _in_order(entries, slots)
    problems: _Problems = defaultdict(list)
    chosen = _choose(arrays, pairs, slots, problems)
    for rule in rules:
        if not any(map(rule.matches, entries.values())):
            problems["rules that match nothing"].append(rule.text)
    if layout is None:
        layout = _likely_layout(arrays, chosen, slots, problems)
    values = _load(arrays, chosen, slots, layout, problems)
    if problems:
        network = f"{type(module).__name__} on images {list(image_shape)}"
        how = ", paired in order" if in_order else ""
        subject = f"{source} does not fit {network}{how}:"
        hints = [_FOLDED] if _is_folded(entries, slots) else []
        raise QevoError("\n".join([subject, *_listed(problems), *hints, _HINT]))
    for key in [key for key in values if slots[key].absorbed]:
        bias, mean = values.pop(key), key.removesuffix("bias") + "norm/mean"
        values[mean] = values[mean] - bias
    return unflatten_dict({_variable(key): value for key, value in values.items()}, sep="/")


class _Slot(NamedTuple):
    """What the network needs an array for."""

    shape: tuple[int, ...]
    image: tuple[int, ...] = ()  # (H, W, C) of a dense kernel whose layer reads flattened images
    absorbed: bool = False  # a bias in front of a batch norm: may be there

    def stored_shape(self, layout: Layout) -> tuple[int, ...]:
        """Its shape in a file of that layout."""
        if layout == "flax" or len(self.shape) == 1:
            return self.shape
        return (*self.shape[:-3:-1], *self.shape[:-2])

    def load(self, array: np.ndarray, layout: Layout) -> np.ndarray:
        """The stored array as the network has it, float32."""
        if layout == "torch" and len(self.shape) > 1:
            height, width, channels = self.image or (1, 1, -1)
            if array.ndim == 2:
                array = array.reshape(len(array), channels, height, width)
            array = array.transpose(2, 3, 1, 0).reshape(self.shape)
        with np.errstate(over="ignore"):  # the caller looks for infinities
            return np.array(array, np.float32, order="C")


class _Flat(NamedTuple):
    """A flattened activation ``[B, K]`` and the ``(H, W, C)`` that it had."""

    value: jax.Array
    image: tuple[int, ...]


class _OutlineProduct(nn.Module):
    layer: Product
    numerics: _Outline

    @nn.compact
    def __call__(self, x: Any) -> jax.Array:
        flat = x if isinstance(x, _Flat) else _Flat(x, ())
        layer, slots, name = self.layer, self.numerics.slots, "/".join(self.path)
        shape = layer.kernel_shape(flat.value.shape[-1])
        slots[f"{name}/kernel"] = _Slot(shape, flat.image)
        slots[f"{name}/bias"] = _Slot((layer.features,), absorbed=layer.batch_norm)
        if layer.batch_norm:
            slots.update({f"{name}/{key}": _Slot((layer.features,)) for key in _NORM_KEYS.values()})
        return multiply(flat.value, jnp.zeros(shape), layer)


@dataclasses.dataclass(frozen=True)
class _Outline(Float):
    """Notes the slots of every layer, by layer and key, in the order of computation."""

    slots: dict[str, _Slot] = dataclasses.field(default_factory=dict)

    def product(self, x: Any, layer: Product, *, name: str) -> jax.Array:
        return _OutlineProduct(layer, self, name=name)(x)

    def flatten(self, x: jax.Array) -> Any:
        return _Flat(super().flatten(x), x.shape[1:] if x.ndim == 4 else ())


def _slots(module: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, _Slot]:
    outline = _Outline()
    outlined = module.clone(numerics=outline)
    image = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    jax.eval_shape(lambda images: outlined.apply({}, images), image)
    return outline.slots


def _variable(key: str) -> str:
    return f"{'batch_stats' if key.endswith(_STATISTICS) else 'params'}/{key}"


class _Entry(NamedTuple):
    """The name of an array, taken apart; with "/" and without a collection."""

    path: str
    layer: str
    key: str | None  # of a slot within the layer

    def slot(self, layer: str) -> str:
        """The slot that the array would fill if its layer were this one."""
        return f"{layer.removesuffix('/norm')}/{self.key}"


def _entries(arrays: Mapping[str, np.ndarray]) -> dict[str, _Entry]:
    paths = {n: _path(n) for n in arrays if not n.endswith("num_batches_tracked")}
    parts = {name: path.rpartition("/") for name, path in paths.items()}
    roles = {name: _ROLES.get(part) for name, (_, _, part) in parts.items()}
    norms = {
        parts[name][0]
        for name, role in roles.items()
        if role in ("mean", "var") or (role == "weight" and arrays[name].ndim == 1)
    }
    entries = {}
    for name, (layer, _, _) in parts.items():
        keys = _NORM_KEYS if layer in norms else _PRODUCT_KEYS
        entries[name] = _Entry(paths[name], layer, keys.get(roles[name] or ""))
    return entries


def _is_folded(entries: Mapping[str, _Entry], slots: Mapping[str, _Slot]) -> bool:
    """Whether all norms that the network has are missing from arrays that do have layers."""
    norms = set(_NORM_KEYS.values())
    keys = {entry.key for entry in entries.values()}
    return "kernel" in keys and not keys & norms and any(slot.absorbed for slot in slots.values())


def _path(name: str) -> str:
    return name.replace(".", "/").removeprefix("params/").removeprefix("batch_stats/")


class _Rule(NamedTuple):
    text: str
    theirs: re.Pattern[str]
    ours: str

    def translate(self, path: str) -> str | None:
        """What a path becomes, or ``None`` if it does not match."""
        match = self.theirs.fullmatch(path)
        if match is None:
            return None
        texts = iter(match.groups())
        return re.sub(r"\*", lambda _: next(texts), self.ours)

    def matches(self, entry: _Entry) -> bool:
        return any(self.theirs.fullmatch(path) for path in (entry.path, entry.layer))


def _rules(names: Names) -> list[_Rule]:
    if isinstance(names, Mapping):
        names = [f"{theirs}={ours}" for theirs, ours in names.items()]
    rules = []
    for text in [names] if isinstance(names, str) else names:
        theirs, equals, ours = (part.strip() for part in text.partition("="))
        if not (theirs and equals):
            raise QevoError(f'names: {text!r} is neither a rule "THEIRS=OURS" nor "in order"')
        if ours and theirs.count("*") != ours.count("*"):
            raise QevoError(f"names: {text!r} must have as many * on the right as on the left")
        pattern = re.escape(_path(theirs)).replace(r"\*", "(.*?)")
        rules.append(_Rule(text, re.compile(pattern), _path(ours)))
    return rules


def _by_name(entry: _Entry, rules: Sequence[_Rule], slots: Mapping[str, _Slot]) -> str | None:
    """The slot that an array is for, ``None`` if it is left out, or the path of an extra one."""
    translated = (rule.translate(path) for rule in rules for path in (entry.path, entry.layer))
    ours = next((path for path in translated if path is not None), entry.path)
    layer, _, part = ours.rpartition("/")
    keys = [ours, entry.slot(ours)]
    if part == entry.path.rpartition("/")[2]:  # a name of ours, or a rule like "theirs.*=ours.*"
        keys.append(entry.slot(layer))
    return next((key for key in keys if key in slots), ours or None)


def _in_order(entries: Mapping[str, _Entry], slots: Mapping[str, _Slot]) -> dict[str, str | None]:
    """As `_by_name`, of all arrays: layers of a kind are paired in their order."""
    names = list(entries)
    if names == sorted(names):
        names.sort(
            key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]
        )
    pairs: dict[str, str | None] = {name: entry.path for name, entry in entries.items()}
    for suffix in ("kernel", "norm/scale"):
        theirs = [entries[name].layer for name in names if entries[name].key == suffix]
        ours = [key.removesuffix(f"/{suffix}") for key in slots if key.endswith(f"/{suffix}")]
        layers = dict(zip(theirs, ours, strict=False))
        pairs |= {
            n: e.slot(layers[e.layer]) for n, e in entries.items() if e.key and e.layer in layers
        }
    return pairs


def _choose(
    arrays: Mapping[str, np.ndarray],
    pairs: Mapping[str, str | None],
    slots: Mapping[str, _Slot],
    problems: _Problems,
) -> dict[str, str]:
    """The array for each slot."""
    chosen: dict[str, str] = {}
    wanted = [(name, key) for name, key in pairs.items() if key is not None]
    for name, key in wanted:
        first = chosen.setdefault(key, name)
        if key in slots and first != name:
            problems["filled twice"].append(f"{_variable(key)}: {first} and {name}")
    for key, slot in slots.items():
        if key not in chosen and not slot.absorbed:
            line = f"{_variable(key)} {list(slot.shape)}"
            problems["missing, filled by no array"].append(line)
    for name, key in wanted:
        if key not in slots:
            by_rule = "" if key == _path(name) else f", by a rule {key}"
            line = f"{name} {list(arrays[name].shape)}{by_rule}"
            problems["extra, taken by no variable"].append(line)
    return {key: name for key, name in chosen.items() if key in slots}


def _likely_layout(
    arrays: Mapping[str, np.ndarray],
    chosen: Mapping[str, str],
    slots: Mapping[str, _Slot],
    problems: _Problems,
) -> Layout:
    """The layout of the kernels, by their shapes or else by their names."""
    kernels = {name: slots[key] for key, name in chosen.items() if key.endswith("/kernel")}

    def fitting(layout: Layout) -> int:
        return sum(arrays[n].shape == slot.stored_shape(layout) for n, slot in kernels.items())

    if fitting("torch") != fitting("flax"):
        return "torch" if fitting("torch") > fitting("flax") else "flax"
    parts = {_path(name).rpartition("/")[2] for name in kernels}
    if parts == {"kernel"}:
        return "flax"
    if parts - {"weight"}:
        problems['fitting both layouts: say layout="torch" or "flax"'] += kernels
    return "torch"


def _load(
    arrays: Mapping[str, np.ndarray],
    chosen: Mapping[str, str],
    slots: Mapping[str, _Slot],
    layout: Layout,
    problems: _Problems,
) -> dict[str, np.ndarray]:
    """The value of each slot, as the network has it."""
    values: dict[str, np.ndarray] = {}
    for key, name in chosen.items():
        array, slot = arrays[name], slots[key]
        needed = slot.stored_shape(layout)
        if array.shape != needed or not jnp.issubdtype(array.dtype, jnp.floating):
            found = f"{array.dtype} {list(array.shape)}"
            problems["of another shape or type"].append(
                f"{name} {found}, not floats {list(needed)} for {_variable(key)}"
            )
            continue
        values[key] = slot.load(array, layout)
        if not np.isfinite(values[key]).all():
            problems["not finite in float32"].append(name)
    return values


def _listed(problems: _Problems) -> Iterator[str]:
    """The lines of an error."""
    for kind, found in problems.items():
        yield f"  {kind} ({len(found)}):"
        yield from (f"    {line}" for line in found[:_SHOWN])
        if len(found) > _SHOWN:
            yield f"    and {len(found) - _SHOWN} more"
