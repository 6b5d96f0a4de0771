"""etcd's messages and stubs under any protobuf, standing in for `etcd3.etcdrpc`.

The code that etcd3 ships was generated for protobuf 3 and fails to import from 4 on. But its sources
carry the serialized descriptors of etcd's API, and from those protobuf builds the same message classes
at run time. `install` puts them where etcd3 looks for them, so it must run before etcd3 is imported.
"""
from __future__ import annotations

import ast
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SHAPES = {(False, False): "unary_unary", (False, True): "unary_stream",
          (True, False): "stream_unary", (True, True): "stream_stream"}


def install() -> types.ModuleType:
    module = types.ModuleType("etcd3.etcdrpc")
    pool = descriptor_pool.DescriptorPool()
    for name in ("kv", "auth", "rpc"):
        file = descriptor_pb2.FileDescriptorProto.FromString(_descriptor(name))
        pool.Add(file)
        _publish(module, pool.FindFileByName(file.name))
    sys.modules[module.__name__] = module
    return module


def _descriptor(name: str) -> bytes:
    spec = importlib.util.find_spec("etcd3")
    if spec is None or spec.origin is None:
        raise ImportError("etcd3 is not installed")
    source = (Path(spec.origin).parent / "etcdrpc" / f"{name}_pb2.py").read_text()
    literal = re.search(r"serialized_pb=_b\((.*)\)$", source, re.MULTILINE)
    if literal is None:
        raise ImportError(f"this etcd3 carries no descriptor of {name}.proto")
    return str(ast.literal_eval(literal[1])).encode("latin-1")


def _publish(module: types.ModuleType, file: Any) -> None:
    for name, message in file.message_types_by_name.items():
        setattr(module, name, message_factory.GetMessageClass(message))
    for enum in file.enum_types_by_name.values():
        for value in enum.values:
            setattr(module, value.name, value.number)
    for name, service in file.services_by_name.items():
        setattr(module, f"{name}Stub", _stub(service))


def _stub(service: Any) -> type:
    def connect(self: Any, channel: Any) -> None:
        for method in service.methods:
            call = getattr(channel, SHAPES[bool(method.client_streaming), bool(method.server_streaming)])
            request, answer = (message_factory.GetMessageClass(t) for t in (method.input_type, method.output_type))
            setattr(self, method.name, call(f"/{service.full_name}/{method.name}",
                                            request_serializer=request.SerializeToString,
                                            response_deserializer=answer.FromString))
    return type(f"{service.name}Stub", (), {"__init__": connect})
