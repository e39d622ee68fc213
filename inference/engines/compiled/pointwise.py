"""Operations on single numbers as C++ expressions.

A field in braces is an argument of the ATen operation by its schema's name; what a result does not depend on is left
out. Numbers have the type of the result, unless the operation compares them.
"""

from string import Formatter
from typing import Any

# Operations whose arguments are compared, or tested, in their own common type.
COMPARISONS = {
    "eq": "{self} == {other}",
    "ne": "{self} != {other}",
    "lt": "{self} < {other}",
    "le": "{self} <= {other}",
    "gt": "{self} > {other}",
    "ge": "{self} >= {other}",
    "logical_not": "!{self}",
    "logical_and": "{self} && {other}",
    "logical_or": "{self} || {other}",
    "isnan": "{self} != {self}",
}
_ARITHMETIC = {
    "abs": "{self} < 0 ? -{self} : {self}",
    "add": "{self} + {alpha} * {other}",
    "addcdiv": "{self} + {value} * {tensor1} / {tensor2}",
    "addcmul": "{self} + {value} * {tensor1} * {tensor2}",
    "asinh": "m_asinh({self})",
    "binary_cross_entropy_with_logits": "(1 - {target}) * {self} + m_log1p(m_exp({self} < 0 ? {self} : -{self}))"
    " + ({self} < 0 ? -{self} : 0)",
    "bitwise_and": "{self} & {other}",
    "bitwise_or": "{self} | {other}",
    "bitwise_not": "!{self}",  # of truth values only
    "clamp_max": "{self} > {max} ? {max} : {self}",
    "clamp_min": "{self} < {min} ? {min} : {self}",
    "clone": "{self}",
    "copy": "{src}",
    "cos": "m_cos({self})",
    "cosh": "m_cosh({self})",
    "div": "{self} / {other}",
    "erf": "m_erf({self})",
    "exp": "m_exp({self})",
    "expm1": "m_expm1({self})",
    "fill": "{value}",
    "lgamma": "m_lgamma({self})",
    "log": "m_log({self})",
    "log1p": "m_log1p({self})",
    "log_sigmoid_forward": "({self} < 0 ? {self} : 0) - m_log1p(m_exp({self} < 0 ? {self} : -{self}))",
    "log_sigmoid_backward": "{grad_output} / (1 + m_exp({self}))",
    "masked_fill": "{mask} ? {value} : {self}",
    "maximum": "{self} >= {other} || {self} != {self} ? {self} : {other}",
    "minimum": "{self} <= {other} || {self} != {self} ? {self} : {other}",
    "mul": "{self} * {other}",
    "neg": "-{self}",
    "reciprocal": "1 / {self}",
    "relu": "{self} < 0 ? 0 : {self}",
    "reshape": "{self}",
    "rsqrt": "1 / m_sqrt({self})",
    "rsub": "{other} - {alpha} * {self}",
    "sgn": "({self} > 0) - ({self} < 0)",
    "sigmoid": "1 / (1 + m_exp(-{self}))",
    "sigmoid_backward": "{grad_output} * (1 - {output}) * {output}",
    "sign": "({self} > 0) - ({self} < 0)",
    "sin": "m_sin({self})",
    "sinh": "m_sinh({self})",
    "softplus": "{self} * {beta} > {threshold} ? {self} : m_log1p(m_exp({self} * {beta})) / {beta}",
    "softplus_backward": "{self} * {beta} > {threshold} ? {grad_output}"
    " : {grad_output} / (1 + m_exp(-{self} * {beta}))",
    "sqrt": "m_sqrt({self})",
    "square": "{self} * {self}",
    "sub": "{self} - {alpha} * {other}",
    "tanh": "m_tanh({self})",
    "tanh_backward": "{grad_output} * (1 - {output} * {output})",
    "threshold_backward": "{self} <= {threshold} ? 0 : {grad_output}",
    "where": "{condition} ? {self} : {other}",
    "xlogy": "{other} != {other} ? {other} : {self} == 0 ? 0 : {self} * m_log({other})",
    "_to_copy": "{self}",
}
_POWERS = {2: "{self} * {self}", 3: "{self} * {self} * {self}", 1: "{self}", 0.5: "m_sqrt({self})", -1: "1 / {self}"}
_POWERS |= {-2: "1 / ({self} * {self})", -0.5: "1 / m_sqrt({self})"}
TRUTH = {"condition", "mask"}  # arguments that are truth values
_MATH = ("asinh", "cos", "cosh", "erf", "exp", "expm1", "lgamma", "log", "log1p", "pow", "sin", "sinh", "sqrt", "tanh")
# In glibc for several numbers at once, by the release that brought them.
_VECTORISED: dict[tuple[int, ...], tuple[str, ...]] = {(2, 22): ("cos", "exp", "log", "pow", "sin")}
_VECTORISED[2, 35] = ("asinh", "cosh", "erf", "expm1", "log1p", "sinh", "tanh")


def template(name: str, arguments: dict[str, Any]) -> str | None:
    """Return the expression of an operation, None if there is none."""
    if name == "pow":
        exponent = arguments["exponent"]
        plain = _POWERS.get(exponent) if isinstance(exponent, int | float) else None
        return plain or "m_pow({self}, {exponent})"
    if name == "clamp":
        low, high = (arguments[bound] is not None for bound in ("min", "max"))
        inner = "({self} < {min} ? {min} : {self})" if low else "{self}"
        return f"{inner} > {{max}} ? {{max}} : {inner}" if high else inner
    if any(arguments.get(option) for option in ("rounding_mode", "weight", "pos_weight", "reduction")):
        return None
    return COMPARISONS.get(name) or _ARITHMETIC.get(name)


def fields(expression: str) -> list[str]:
    """Return the arguments that an expression reads."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(expression) if name))


def _declaration(name: str, vectorised: bool) -> str:
    both = "number, number" if name == "pow" else "number"
    lines = []
    for kind, suffix in (("float", "f"), ("double", "")):
        types = both.replace("number", kind)
        names = [f"{part} {letter}" for part, letter in zip(types.split(", "), "xy", strict=False)]
        simd = '__attribute__((simd("notinbranch"))) ' if vectorised else ""
        lines.append(f'extern "C" {simd}{kind} {name}{suffix}({types});')
        call = ", ".join("xy"[: len(names)])
        lines.append(f"static inline {kind} m_{name}({', '.join(names)}) {{ return {name}{suffix}({call}); }}")
    return "\n".join(lines)


def declarations(glibc: tuple[int, ...]) -> str:
    """Return C++ declarations of the functions used, so that no header has to be read.

    Those that this release of glibc has for several numbers at once are called so; with an empty tuple, none is.
    """
    several = {name for release, names in _VECTORISED.items() if glibc >= release for name in names}
    return "\n".join(_declaration(name, name in several) for name in _MATH)
