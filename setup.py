"""Builds the native modules; everything else is in pyproject.toml.

They are optional: where no C++ compiler is found the package installs all the same and uses the
pure Python versions, which give identical results, slowly. They use Python's stable ABI, so one
wheel serves Python 3.11 and later.
"""

from setuptools import Extension, setup

COMPILE = {
    "language": "c++",
    "extra_compile_args": ["-std=c++17", "-O3", "-fvisibility=hidden"],
    "define_macros": [("Py_LIMITED_API", "0x030B0000")],
    "py_limited_api": True,
    "optional": True,
}

setup(
    ext_modules=[
        Extension("zhbert.text._wordpiece", ["src/zhbert/text/_wordpiece.cpp"], **COMPILE),
        *(
            Extension(
                f"zhbert.{name}",
                [f"src/zhbert/{name.replace('.', '/')}.cpp"],
                depends=["src/zhbert/array.h"],
                **COMPILE,
            )
            for name in ("text._segment", "data._rows")
        ),
        *(
            Extension(
                f"zhbert.model.{name}",
                [f"src/zhbert/model/{name}.cpp"],
                depends=["src/zhbert/model/kernel.h"],
                extra_link_args=["-pthread"],
                **COMPILE,
            )
            for name in ("_attention", "_int8")
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
