// The two kinds of trained tokenizers; others reach them through open_tokenizer.
//
// In:      a file. Out: a Tokenizer.
// Thread:  as Tokenizer says.
// Why:     one is a C++ library and the other a Python package: each has its file, and tokenizer.h knows neither.
#pragma once

#include "data/tokenizer.h"

namespace stagecoach::data {

/// errors: corrupt  not a SentencePiece model · not_found · io_error · too_large
base::Result<std::unique_ptr<Tokenizer>> open_sentencepiece(const std::filesystem::path& file);

/// errors: corrupt  not a tokenizer.json · unavailable  no Python with the package `tokenizers`
///         not_found · io_error · too_large
base::Result<std::unique_ptr<Tokenizer>> open_huggingface(const std::filesystem::path& file, const std::string& python);

}  // namespace stagecoach::data
