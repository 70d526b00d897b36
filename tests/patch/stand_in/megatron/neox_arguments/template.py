from dataclasses import dataclass


@dataclass
class NeoXArgsTemplate:
    """Base of every group of keys."""

    def defaults(self):
        for name, field in self.__dataclass_fields__.items():
            yield name, field.default
