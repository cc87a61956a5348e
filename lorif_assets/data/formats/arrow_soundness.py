"""Whether Arrow data that were mapped from a file, and not decoded, point to nothing outside of them."""

import pyarrow as pa

_AS_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def refuse_unsound(table: pa.Table) -> None:
    """Refuse rows whose offsets or indices lie outside of their values, which Python's objects would be made from.

    Texts are looked at as bytes: one that is not UTF-8 is a matter of its row.

    Raises:
        pa.ArrowInvalid: there are some.
    """
    for column in table.columns:
        for chunk in column.chunks:
            try:
                chunk.validate(full=True)
            except pa.ArrowInvalid:
                chunk.validate()
                _as_bytes(chunk).validate(full=True)


def _as_bytes(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        return _as_bytes(array.storage)
    kind = array.type
    if kind in _AS_BYTES:
        return array.view(_AS_BYTES[kind])
    if pa.types.is_struct(kind):
        fields = [_as_bytes(array.field(k)) for k in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, names=[str(k) for k in range(kind.num_fields)])
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(array.indices, _as_bytes(array.dictionary), safe=False)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values = _as_bytes(array.values)
        is_fixed = pa.types.is_fixed_size_list(kind)
        return type(array).from_arrays(*((values, kind.list_size) if is_fixed else (array.offsets, values)))
    return array
