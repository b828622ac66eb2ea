"""Does for the C++ shard writer what only Python packages can, over standard input and output.

In:   `parquet FILE COLUMN FIRST_ROW`: nothing more. `tokenizer FILE`: requests until the input ends.
Out:  frames: u32 kind (0 answer, 1 error), u64 length, bytes. An error is a word ("missing", "corrupt", "failed") and a
      sentence.
Everything is little-endian. Embedded into the program (src/data/bridge_source.h.in) and run as `python -c`.
"""

import sys

sys.path = [path for path in sys.path if path]  # with -c the working folder stands first: its files are not packages

import os
import struct

FRAME_BYTES = 4 << 20
NULL = 0xFFFFFFFF
WELL_KNOWN_ENDS = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>"]

# A native library that prints must not reach the frames.
OUTPUT = os.fdopen(os.dup(1), "wb", buffering=0)
os.dup2(2, 1)
INPUT = os.fdopen(0, "rb", buffering=1 << 20)


def write(kind, *parts):
    write_all(struct.pack("<IQ", kind, sum(len(part) for part in parts)))
    for part in parts:
        write_all(part)


def write_all(part):
    view = memoryview(part)
    while len(view):
        view = view[OUTPUT.write(view):]


def fail(word, sentence):
    write(1, f"{word} {sentence}".encode())
    sys.exit(1)


def read(count):
    data = INPUT.read(count)
    if len(data) != count:
        sys.exit(0)  # the other side is done
    return data


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def parquet(path, column, first_row):
    try:
        import numpy
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        fail("missing", error.name if error.name in ("numpy", "pyarrow") else "pyarrow")
    try:
        file = pyarrow.parquet.ParquetFile(path, pre_buffer=False)
        schema = file.schema_arrow
    except Exception as error:
        fail("corrupt", f"is not a Parquet file that can be read: {first_line(error)}")
    if column not in schema.names:
        fail("corrupt", f'has no column "{column}"; it has ' + ", ".join(f'"{name}"' for name in schema.names))
    kind = schema.field(column).type
    plain = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not any(test(plain) for test in (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_binary,
                                        pyarrow.types.is_large_binary)):
        fail("corrupt", f'has a column "{column}" of type {kind}, and texts are strings')
    write(0, struct.pack("<Q", file.metadata.num_rows))
    row, groups = 0, list(range(file.metadata.num_row_groups))
    while groups and row + file.metadata.row_group(groups[0]).num_rows <= first_row:
        row += file.metadata.row_group(groups.pop(0)).num_rows
    try:
        for batch in file.iter_batches(batch_size=4096, row_groups=groups, columns=[column]) if groups else ():
            texts = batch.column(0)
            if pyarrow.types.is_dictionary(kind):
                texts = texts.dictionary_decode()
            texts = texts.slice(min(max(first_row - row, 0), len(texts))).cast(pyarrow.large_binary())
            row += batch.num_rows
            send_texts(texts, numpy)
    except (OSError, pyarrow.ArrowException) as error:
        fail("corrupt", f"is damaged: {first_line(error)}")
    write(0, struct.pack("<Q", 0))


def send_texts(texts, numpy):
    """Sends rows in frames of about FRAME_BYTES, straight from Arrow's buffers."""
    if not len(texts):
        return
    _, offsets, data = texts.buffers()
    ends = numpy.frombuffer(offsets, dtype=numpy.int64)[texts.offset:texts.offset + len(texts) + 1]
    bytes_of_rows = numpy.diff(ends)
    nulls = texts.is_null().to_numpy(zero_copy_only=False)
    lengths = numpy.where(nulls, NULL, numpy.minimum(bytes_of_rows, NULL - 1)).astype("<u4")
    view = memoryview(data) if data is not None else memoryview(b"")
    first = 0
    while first < len(texts):
        last = max(first + 1, int(numpy.searchsorted(ends, ends[first] + FRAME_BYTES, side="right")) - 1)
        if nulls[first:last].any():
            body = b"".join(view[ends[i]:ends[i + 1]] for i in range(first, last) if not nulls[i])
        else:
            body = view[ends[first]:ends[last]]
        write(0, struct.pack("<Q", last - first), lengths[first:last].tobytes(), body)
        first = last


def tokenizer(path):
    # One process a thread of the program: a pool of threads in each would only take turns. Set before the import.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        fail("missing", "tokenizers")
    try:
        model = Tokenizer.from_file(path)
    except Exception as error:
        fail("corrupt", f"{path} is not a tokenizer.json that the package `tokenizers` reads: {first_line(error)}")
    model.no_truncation()
    model.no_padding()
    ids = model.get_vocab(with_added_tokens=True).values()
    end = next((model.token_to_id(token) for token in WELL_KNOWN_ENDS if model.token_to_id(token) is not None), -1)
    write(0, struct.pack("<qi", max(ids, default=-1) + 1, end))
    encode_batch = getattr(model, "encode_batch_fast", model.encode_batch)  # the same ids, without offsets
    while True:
        kind, count = struct.unpack("<II", read(8))
        try:
            if kind == 1:
                write(0, *encode(encode_batch, count))
            elif kind == 2:
                tokens = list(struct.unpack(f"<{count}I", read(4 * count)))
                write(0, model.decode(tokens, skip_special_tokens=False).encode())
            else:
                token = model.token_to_id(read(count).decode("utf-8", "replace"))
                write(0, struct.pack("<i", -1 if token is None else token))
        except Exception as error:
            fail("failed", f"the package `tokenizers` failed: {first_line(error)}")


def encode(encode_batch, count):
    """Yields the number of ids of each text, then the ids."""
    from array import array
    lengths = struct.unpack(f"<{count}I", read(4 * count))
    data = read(sum(lengths))
    texts, at = [], 0
    for length in lengths:
        texts.append(data[at:at + length].decode())
        at += length
    counts, ids = array("I"), array("I")
    for encoding in encode_batch(texts, add_special_tokens=False):
        own = encoding.ids
        counts.append(len(own))
        ids.extend(own)
    yield counts.tobytes()
    yield ids.tobytes()


def main():
    task, *arguments = sys.argv[1:]
    if task == "parquet":
        parquet(arguments[0], arguments[1], int(arguments[2]))
    else:
        tokenizer(arguments[0])


main()
