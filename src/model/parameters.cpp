// The parameter list: names, shapes and order. See parameters.h.
#include "model/parameters.h"

#include <cstdio>

namespace stagecoach::model {
namespace {

/// Appends tensors and numbers them as they come: the index is the place in the whole model's list.
class ParameterList {
 public:
  void add(std::string name, std::vector<std::int64_t> shape, std::int64_t layer) {
    const bool matrix = shape.size() > 1;
    list_.push_back(ParameterInfo{std::move(name), std::move(shape), layer, matrix, base::TensorIndex(list_.size())});
  }
  std::vector<ParameterInfo> take() { return std::move(list_); }

 private:
  std::vector<ParameterInfo> list_;
};

std::string block_prefix(std::int64_t layer) {
  char text[32];
  std::snprintf(text, sizeof text, "blocks.%03lld.", static_cast<long long>(layer));
  return text;
}

void add_block(const ModelConfig& model, std::int64_t layer, ParameterList& list) {
  const std::string prefix = block_prefix(layer);
  const std::int64_t dim = model.dim;
  const std::int64_t kv_dim = model.kv_heads * model.head_width();
  list.add(prefix + "attention_norm", {dim}, layer);
  list.add(prefix + "attention.wq", {dim, dim}, layer);
  list.add(prefix + "attention.wk", {kv_dim, dim}, layer);
  list.add(prefix + "attention.wv", {kv_dim, dim}, layer);
  list.add(prefix + "attention.wo", {dim, dim}, layer);
  list.add(prefix + "ffn_norm", {dim}, layer);
  list.add(prefix + "ffn.w1", {model.ffn, dim}, layer);
  list.add(prefix + "ffn.w2", {model.ffn, dim}, layer);
  list.add(prefix + "ffn.w3", {dim, model.ffn}, layer);
  if (layer > 0 && model.bottleneck_follows(layer - 1)) list.add(prefix + "cut.decode", {dim, model.cut_width}, layer);
  if (model.sees_tokens(layer)) {
    list.add(prefix + "cut.token_embed", {model.vocab, model.token_rank}, layer);
    list.add(prefix + "cut.token_mix", {dim, model.token_window * model.token_rank}, layer);
  }
  if (model.bottleneck_follows(layer)) list.add(prefix + "cut.encode", {model.cut_width, dim}, layer);
}

}  // namespace

std::vector<ParameterInfo> parameters(const ModelConfig& model) {
  ParameterList list;
  list.add("embed.weight", {model.vocab, model.dim}, -1);
  for (std::int64_t layer = 0; layer < model.layers; ++layer) add_block(model, layer, list);
  list.add("final_norm.weight", {model.dim}, model.layers);
  list.add("head.weight", {model.vocab, model.dim}, model.layers);
  return list.take();
}

std::vector<ParameterInfo> parameters(const ModelConfig& model, const StageRange& range) {
  std::vector<ParameterInfo> out;
  for (ParameterInfo& info : parameters(model)) {
    const bool embedding = info.layer < 0 && range.first == 0;
    const bool head = info.layer == model.layers && range.last == model.layers;
    if (embedding || head || (info.layer >= range.first && info.layer < range.last)) out.push_back(std::move(info));
  }
  return out;
}

UpdateRule update_rule(const OptimizerConfig& optimizer, const ParameterInfo& parameter) {
  const bool hidden_matrix = parameter.shape.size() == 2 && parameter.name.starts_with("blocks.") &&
                             !parameter.name.ends_with(".cut.token_embed");
  return optimizer.kind == OptimizerKind::muon && hidden_matrix ? UpdateRule::muon : UpdateRule::adam;
}

std::vector<std::string_view> moment_prefixes(UpdateRule rule) {
  if (rule == UpdateRule::muon) return {kMomentumPrefix};
  return {kMomentPrefix, kSecondMomentPrefix};
}

std::int64_t ParameterInfo::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

std::int64_t total_elements(const std::vector<ParameterInfo>& list) {
  std::int64_t count = 0;
  for (const ParameterInfo& info : list) count += info.elements();
  return count;
}

}  // namespace stagecoach::model
