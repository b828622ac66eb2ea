// The lines of a text, as SentencePiece's trainer asks for them. For tests.
#pragma once

#include <sentencepiece_trainer.h>

#include <sstream>
#include <string>

namespace stagecoach::data {

class Lines final : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(const std::string& text) : lines_(text) { Next(); }
  bool done() const override { return !lines_; }
  void Next() override { std::getline(lines_, line_); }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::istringstream lines_;
  std::string line_;
};

}  // namespace stagecoach::data
