// The layout: how many layers each stage gets, and its edges on cuts.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "model/config.h"

namespace stagecoach::model {
namespace {

/// Layers per stage, ends lighter: they also embed or have the head and the loss (reference, orion-iota-resbm §1.2).
std::vector<std::int64_t> balanced_sizes(std::int64_t layers, std::int64_t stages) {
  const std::int64_t mean = layers / stages;
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(stages), mean);
  if (stages < 3) {
    for (std::int64_t i = 0; i < layers % stages; ++i) ++sizes[static_cast<std::size_t>(i)];
    return sizes;
  }
  const std::int64_t end = mean >= 3 ? mean - 1 : mean;
  const std::int64_t middle = layers - 2 * end;
  for (std::int64_t i = 1; i + 1 < stages; ++i) {
    sizes[static_cast<std::size_t>(i)] = middle / (stages - 2) + (i - 1 < middle % (stages - 2) ? 1 : 0);
  }
  sizes.front() = end;
  sizes.back() = end;
  return sizes;
}

/// The ascending choice of cuts with the least summed distance to the wished edges; both lists hold the layer before the edge.
std::vector<std::int64_t> nearest_cuts(const std::vector<std::int64_t>& wished, const std::vector<std::int64_t>& cuts) {
  constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max() / 2;
  const std::size_t edges = wished.size();
  // cost[e][c]: the least sum for the first e edges using only the first c cuts.
  std::vector<std::vector<std::int64_t>> cost(edges + 1, std::vector<std::int64_t>(cuts.size() + 1, kNever));
  for (std::int64_t& none_yet : cost[0]) none_yet = 0;
  for (std::size_t e = 1; e <= edges; ++e) {
    for (std::size_t c = e; c <= cuts.size(); ++c) {
      const std::int64_t used = cost[e - 1][c - 1] + std::abs(wished[e - 1] - cuts[c - 1]);
      cost[e][c] = std::min(cost[e][c - 1], used);
    }
  }
  std::vector<std::int64_t> chosen(edges);
  std::size_t c = cuts.size();
  for (std::size_t e = edges; e > 0; --e) {
    while (c > e && cost[e][c - 1] == cost[e][c]) --c;  // of equals, the earlier cut
    chosen[e - 1] = cuts[--c];
  }
  return chosen;
}

}  // namespace

Split balanced_split(const ModelConfig& model, std::int64_t stages, std::string& why) {
  if (stages < 1 || stages > model.layers) {
    why = "a model of " + std::to_string(model.layers) + " layers can have between 1 and " + std::to_string(model.layers) +
          " stages, not " + std::to_string(stages);
    return {};
  }
  const auto edges = static_cast<std::size_t>(stages - 1);
  if (model.cut_kind != CutKind::none && model.cut_after.size() < edges) {
    const std::string cuts = std::to_string(model.cut_after.size());
    why = std::to_string(stages) + " stages need " + std::to_string(edges) + " cuts, but model.cut_after has " + cuts +
          ": use at most " + std::to_string(model.cut_after.size() + 1) +
          " stages, or add cuts (which makes it another model)";
    return {};
  }
  std::vector<std::int64_t> last_layers;  // of every stage but the last
  std::int64_t next = 0;
  for (const std::int64_t size : balanced_sizes(model.layers, stages)) {
    next += size;
    if (last_layers.size() < edges) last_layers.push_back(next - 1);
  }
  if (model.cut_kind != CutKind::none) last_layers = nearest_cuts(last_layers, model.cut_after);
  last_layers.push_back(model.layers - 1);
  Split split;
  std::int64_t first = 0;
  for (const std::int64_t layer : last_layers) {
    split.push_back(StageRange{first, layer + 1});
    first = layer + 1;
  }
  why.clear();
  return split;
}

}  // namespace stagecoach::model
