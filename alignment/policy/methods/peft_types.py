"""Registers tuner types of this package with PEFT, so that `PeftModel.from_pretrained` loads their adapters."""

from typing import Any

from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import register_peft_method


def register(name: str, config_cls: type[Any], model_cls: type[Any]) -> Any:
    """Register a tuner under a type that PEFT does not have; return the type.

    `register_peft_method` accepts only members of `PeftType`, an enumeration that cannot be extended by a public
    function: the member is added as `enum` itself adds one.

    Args:
        name: in lower case; the type is the same in upper case, the prefix of the parameters `NAME_`.
    """
    value = name.upper()
    if value not in PeftType.__members__:
        member = str.__new__(PeftType, value)
        member._name_, member._value_ = value, value
        setattr(PeftType, value, member)  # before it is a member, which cannot be set; Python 3.12 looks only here
        PeftType._member_map_[value] = member
        PeftType._value2member_map_[value] = member
        PeftType._member_names_.append(value)
    kind = PeftType(value)
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=name, config_cls=config_cls, model_cls=model_cls)
    return kind
