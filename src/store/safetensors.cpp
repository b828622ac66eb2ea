#include "store/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "digest/digest.h"

namespace stagecoach::store {
namespace {

using base::DType;
using base::Error;
using base::ErrorCode;
using base::NamedTensor;
using base::Result;
using Json = nlohmann::json;

constexpr char kMetadataKey[] = "__metadata__";
constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kHeaderAlignment = 8;

Error corrupt(const std::string& sentence) { return Error{ErrorCode::corrupt, sentence}; }

std::string quoted(const std::string& name) { return "tensor \"" + name.substr(0, 200) + "\""; }

/// The order on disk: wide elements first, then by name.
Result<std::vector<const NamedTensor*>> order_of(std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  std::set<std::string_view> names;
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name.empty() || tensor.name == kMetadataKey || !names.insert(tensor.name).second) {
      return Error{ErrorCode::invalid_argument, quoted(tensor.name) + " is there twice or has no proper name"};
    }
    const auto size = tensor_size_bytes(tensor.tensor.dtype, tensor.tensor.shape);
    if (!size || !tensor.tensor.bytes || tensor.tensor.bytes->size() != *size) {
      return Error{ErrorCode::invalid_argument, quoted(tensor.name) + " does not have the bytes that its shape takes"};
    }
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const auto wide_a = base::bytes_per_element(a->tensor.dtype), wide_b = base::bytes_per_element(b->tensor.dtype);
    return wide_a != wide_b ? wide_a > wide_b : a->name < b->name;
  });
  return order;
}

std::string header_text(const std::vector<const NamedTensor*>& order, const Metadata& metadata) {
  Json root = Json::object();
  if (!metadata.empty()) root[kMetadataKey] = metadata;
  std::uint64_t at = 0;
  for (const NamedTensor* tensor : order) {
    const std::uint64_t end = at + tensor->tensor.bytes->size();
    Json entry = Json::object();
    entry["dtype"] = safetensors_dtype(tensor->tensor.dtype);
    entry["shape"] = tensor->tensor.shape;
    entry["data_offsets"] = std::vector<std::uint64_t>{at, end};
    root[tensor->name] = std::move(entry);
    at = end;
  }
  std::string text = root.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  return text;
}

/// The library keeps the last of two equal keys; here a name that comes twice is an error.
class DuplicateKeys {
 public:
  bool operator()(int, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
        open_.emplace_back();
        break;
      case Json::parse_event_t::object_end:
        open_.pop_back();
        break;
      case Json::parse_event_t::key:
        found_ |= !open_.back().insert(value.get<std::string>()).second;
        break;
      default:
        break;
    }
    return true;
  }
  bool found() const { return found_; }

 private:
  std::vector<std::set<std::string>> open_;
  bool found_ = false;
};

bool read_dtype(const Json& value, DType& dtype) {
  if (!value.is_string()) return false;
  for (const DType known : {DType::f32, DType::bf16, DType::i64, DType::i32}) {
    if (value.get_ref<const std::string&>() != safetensors_dtype(known)) continue;
    dtype = known;
    return true;
  }
  return false;
}

/// An array of numbers that fit into int64, of at most `count_max`.
bool read_numbers(const Json& value, std::size_t count_max, std::vector<std::int64_t>& numbers) {
  if (!value.is_array() || value.size() > count_max) return false;
  for (const Json& number : value) {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
      return false;
    numbers.push_back(number.get<std::int64_t>());
  }
  return true;
}

Result<TensorEntry> read_entry(const std::string& name, const Json& value) {
  TensorEntry entry;
  entry.name = name;
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    return corrupt(quoted(name) + " is not described by dtype, shape and data_offsets");
  }
  if (!read_dtype(value["dtype"], entry.dtype)) {
    return Error{ErrorCode::mismatch,
                 quoted(name) + " has an element type that is not read here (F32, BF16, I64 and I32 are)"};
  }
  std::vector<std::int64_t> offsets;
  if (!read_numbers(value["shape"], kTensorDimensionsMax, entry.shape) ||
      !read_numbers(value["data_offsets"], 2, offsets) || offsets.size() != 2 || offsets[0] > offsets[1]) {
    return corrupt(quoted(name) + " has a shape or offsets that are no lists of sizes");
  }
  entry.begin = static_cast<std::uint64_t>(offsets[0]);
  entry.end = static_cast<std::uint64_t>(offsets[1]);
  const auto size = tensor_size_bytes(entry.dtype, entry.shape);
  if (!size || *size != entry.end - entry.begin)
    return corrupt(quoted(name) + " does not have the bytes that its shape takes");
  return entry;
}

Result<void> read_metadata(const Json& value, Metadata& metadata) {
  if (!value.is_object()) return corrupt("the metadata are not an object");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) return corrupt("the metadata hold something else than texts");
    metadata[key] = text.get<std::string>();
  }
  return {};
}

}  // namespace

Result<WrittenFile> write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                                      const Metadata& metadata) {
  auto order = order_of(tensors);
  if (!order.ok()) return order.error();
  const std::string header = header_text(*order, metadata);
  if (header.size() > kSafetensorsHeaderBytesMax) {
    return Error{ErrorCode::invalid_argument,
                 "the tensors' names and shapes are more than a safetensors header may hold"};
  }
  auto file = base::FileWriter::create(path);
  if (!file.ok()) return file.error();
  WrittenFile written;
  digest::Sha256Stream hash;
  const auto append = [&](std::span<const std::byte> bytes) {
    hash.update(bytes);
    written.bytes += bytes.size();
    return file->write(bytes);
  };
  base::ByteWriter length;
  length.u64(header.size());
  RETURN_IF_ERROR(append(length.take()));
  RETURN_IF_ERROR(append(base::as_bytes(header)));
  for (const NamedTensor* tensor : *order) RETURN_IF_ERROR(append(*tensor->tensor.bytes));
  RETURN_IF_ERROR(file->finish());
  written.sha256 = hash.finish();
  return written;
}

Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file) {
  base::ByteReader reader(file);
  const std::uint64_t length = reader.u64();
  if (!reader.ok() || length > kSafetensorsHeaderBytesMax || length > reader.remaining()) {
    return corrupt("it is truncated, or not a safetensors file: " + std::to_string(file.size()) +
                   " bytes cannot hold the header");
  }
  const std::string_view text = base::as_text(reader.raw(static_cast<std::size_t>(length)));
  if (!text.starts_with('{')) return corrupt("its header is not JSON");
  DuplicateKeys duplicates;
  const Json root = Json::parse(text, std::ref(duplicates), false);
  if (root.is_discarded() || !root.is_object()) return corrupt("its header is not JSON");
  if (duplicates.found()) return corrupt("its header holds a name twice");

  SafetensorsHeader header;
  header.data_offset = kLengthBytes + length;
  for (const auto& [name, value] : root.items()) {
    if (name == kMetadataKey) {
      RETURN_IF_ERROR(read_metadata(value, header.metadata));
      continue;
    }
    auto entry = read_entry(name, value);
    if (!entry.ok()) return entry.error();
    header.entries.push_back(std::move(entry).value());
  }
  // By end as well: an empty tensor has its neighbour's begin.
  std::sort(header.entries.begin(), header.entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t at = 0;
  for (const TensorEntry& entry : header.entries) {
    if (entry.begin != at) return corrupt(quoted(entry.name) + " leaves a gap or lies over another one");
    at = entry.end;
  }
  if (at != file.size() - header.data_offset) {
    return corrupt("its tensors take " + std::to_string(at) + " bytes, and " +
                   std::to_string(file.size() - header.data_offset) +
                   " follow the header: it is truncated or too long");
  }
  return header;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  auto file = base::MappedFile::open(path);
  if (!file.ok()) return file.error();
  auto header = parse_safetensors(file->bytes());
  if (!header.ok()) return header.error().within(path.string());
  return SafetensorsFile(std::move(file).value(), std::move(header).value());
}

NamedTensor SafetensorsFile::read(const TensorEntry& entry) const {
  const auto bytes = file_.bytes().subspan(static_cast<std::size_t>(header_.data_offset + entry.begin),
                                           static_cast<std::size_t>(entry.end - entry.begin));
  return {entry.name, {entry.dtype, entry.shape, base::make_payload(base::Bytes(bytes.begin(), bytes.end()))}};
}

const char* safetensors_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::i64:
      return "I64";
    case DType::i32:
      return "I32";
  }
  CHECK(false, "a tensor has one of the four element types");
}

std::optional<std::uint64_t> tensor_size_bytes(DType dtype, std::span<const std::int64_t> shape) {
  if (shape.size() > kTensorDimensionsMax) return std::nullopt;
  std::int64_t size = static_cast<std::int64_t>(base::bytes_per_element(dtype));
  for (const std::int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(size, dimension, &size)) return std::nullopt;
  }
  return static_cast<std::uint64_t>(size);
}

}  // namespace stagecoach::store
