"""What one client may see of a resource: a namespace (or all) and two selectors.

A ``Selection`` is a value: clients that wrote the same thing share groups, frames and bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from apiguard.kube.selectors import (
    FieldSelector,
    LabelSelector,
    Operator,
    parse_field_selector,
    parse_label_selector,
)
from apiguard.relay.item import Item

_NAME = "metadata.name"
_NAMESPACE = "metadata.namespace"
_NODE = "spec.nodeName"
_EVERY_LABEL = LabelSelector(())
_EVERY_FIELD = FieldSelector(())

Test = Callable[[Item], bool]


@dataclass(frozen=True, slots=True)
class Fields:
    """How one cache's items are asked for fields: ``FieldTable.slots`` and its constants.

    ``namespaced``: whether metadata.namespace can be selected at all.
    """

    slots: Mapping[str, int]
    constant: frozenset[str] = frozenset()
    namespaced: bool = True

    def knows(self, label: str) -> bool:
        if label == _NAMESPACE:
            return self.namespaced
        return label == _NAME or label in self.slots or label in self.constant

    @property
    def node_slot(self) -> int | None:
        """Where an item holds spec.nodeName; None where nobody can ask for it."""
        return self.slots.get(_NODE)


@dataclass(frozen=True, slots=True)
class Selection:
    """``namespace`` "" is every namespace. Equality is that of the three parts."""

    namespace: str = ""
    labels: LabelSelector = _EVERY_LABEL
    fields: FieldSelector = _EVERY_FIELD
    _name: str | None = field(init=False, repr=False, compare=False)
    _node: str | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_name", self.fields.exact(_NAME))
        node = self.fields.exact(_NODE)
        object.__setattr__(
            self, "_node", node if node is not None else self.fields.exact("spec.host")
        )

    @property
    def unselective(self) -> bool:
        """Whether there is no selector; a namespace is none."""
        return self.labels.empty and self.fields.empty

    @property
    def name(self) -> str | None:
        """The one metadata.name asked for."""
        return self._name

    @property
    def node(self) -> str | None:
        """The one spec.nodeName asked for."""
        return self._node

    def known_to(self, fields: Fields) -> bool:
        """Whether a cache can judge every field asked for."""
        return all(fields.knows(r.field) for r in self.fields.requirements)

    def compile(self, fields: Fields) -> Test:
        """The selection as a call on an item; a field unknown to ``fields`` raises ``KeyError``.

        Namespace, name and slots are compared in place: building the mapping that
        ``FieldSelector.matches`` takes costs four times the comparison.
        """
        namespace, labels = self.namespace, self.labels
        terms = tuple(
            (_getter(r.field, fields), r.value, r.operator is not Operator.NOT_EQUALS)
            for r in self.fields.requirements
        )
        if not terms and labels.empty:
            if not namespace:
                return _every
            return lambda item: item.namespace == namespace

        def selected(item: Item) -> bool:
            if namespace and item.namespace != namespace:
                return False
            for get, value, equal in terms:
                if (get(item) == value) is not equal:
                    return False
            return labels.matches(item.labels)

        return selected


def _every(_: Item) -> bool:
    return True


def _getter(label: str, fields: Fields) -> Callable[[Item], str]:
    if label == _NAME:
        return lambda item: item.name
    if label == _NAMESPACE:
        return lambda item: item.namespace
    if label in fields.constant:
        return lambda _: ""
    slot = fields.slots[label]
    return lambda item: item.values[slot]


def parse_selection(namespace: str, label_text: str, field_text: str) -> Selection:
    """From a request's path and query; raises ``SelectorError``."""
    return Selection(namespace, parse_label_selector(label_text), parse_field_selector(field_text))
