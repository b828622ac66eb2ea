// One hash over many tensors that does not depend on how they are spread over files.
//
// In:      tensors. Out: SHA-256.
// Thread:  any.
// Why:     the writer sees stages one by one and must not keep their bytes; a hash per tensor is what it keeps.
#pragma once

#include <map>
#include <string>

#include "base/ids.h"
#include "base/tensor_bytes.h"

namespace stagecoach::store {

/// SHA-256 over the text "<name>\n<dtype>\n<dimensions, comma-separated>\n<SHA-256 of the bytes, hex>\n".
base::Sha256 tensor_sha256(const base::NamedTensor& tensor);

/// True for the optimizer's state: "optimizer.<moment>.<name>".
bool is_optimizer_state(const std::string& name);

/// SHA-256 over the hashes' hexadecimal digits, each with a newline, in name order.
enum class HashedPart { weights, weights_and_optimizer_state };
base::Sha256 combined_sha256(const std::map<std::string, base::Sha256>& hashes, HashedPart part);

}  // namespace stagecoach::store
