// Claims: the counts are those of the published models; the stages' lists are slices of the whole model's; a resbm cut costs
// 2·D·K, one matrix on each side of it.
#include "model/parameters.h"

#include <gtest/gtest.h>

namespace stagecoach::model {
namespace {

ModelConfig llama(std::int64_t dim, std::int64_t layers, std::int64_t heads, std::int64_t ffn) {
  return ModelConfig{.vocab = 128'256, .dim = dim, .layers = layers, .heads = heads, .kv_heads = 8, .ffn = ffn,
                     .cut_kind = CutKind::none, .cut_after = {}};
}

TEST(Parameters, count_the_published_models) {
  EXPECT_EQ(total_elements(parameters(llama(9'216, 90, 72, 32'256))), 99'615'863'808);  // Orion-100B
  EXPECT_EQ(total_elements(parameters(llama(7'168, 66, 56, 25'088))), 45'197'200'384);
  EXPECT_EQ(total_elements(parameters(llama(4'096, 32, 32, 14'336))), 8'030'261'248);
  EXPECT_EQ(total_elements(parameters(llama(3'072, 28, 24, 8'192))), 3'606'752'256);
}

TEST(Parameters, count_orions_bottlenecks) {
  ModelConfig model = llama(9'216, 90, 72, 32'256);
  model.cut_kind = CutKind::resbm;
  model.cut_width = 144;
  for (std::int64_t layer = 3; model.cut_after.size() < 15; layer += 5) model.cut_after.push_back(layer);
  EXPECT_EQ(total_elements(parameters(model)), 99'615'863'808 + 15 * 2'654'208);
  model.cut_width = model.dim;
  EXPECT_EQ(total_elements(parameters(model)), 99'615'863'808) << "K = D is a plain block";
}

TEST(Parameters, have_names_shapes_and_places) {
  ModelConfig model;
  model.cut_after = {1};
  const std::vector<ParameterInfo> list = parameters(model);
  ASSERT_EQ(list.size(), 1u + 4 * 9 + 2 + 2);
  EXPECT_EQ(list.front().name, "embed.weight");
  EXPECT_EQ(list.front().layer, -1);
  EXPECT_EQ(list[1].name, "blocks.000.attention_norm");
  EXPECT_FALSE(list[1].decayed);
  EXPECT_EQ(list[3].name, "blocks.000.attention.wk");
  EXPECT_EQ(list[3].shape, (std::vector<std::int64_t>{64, 128}));
  EXPECT_EQ(list[19].name, "blocks.001.cut.encode");
  EXPECT_EQ(list[19].shape, (std::vector<std::int64_t>{32, 128}));
  EXPECT_EQ(list[29].name, "blocks.002.cut.decode");
  EXPECT_EQ(list[29].shape, (std::vector<std::int64_t>{128, 32}));
  EXPECT_EQ(list.back().name, "head.weight");
  EXPECT_EQ(list.back().layer, 4);
  EXPECT_TRUE(list.back().decayed);
  for (std::size_t i = 0; i < list.size(); ++i) EXPECT_EQ(list[i].index.value(), i);
}

TEST(Parameters, of_a_view_of_tokens_stand_at_the_receiver_and_cost_the_embedding_and_the_convolution) {
  ModelConfig model;
  model.cut_after = {1};
  model.token_rank = 24;
  model.token_window = 3;
  const std::int64_t without = total_elements(parameters(model));
  model.cut_kind = CutKind::resbm_tokens;
  const std::vector<ParameterInfo> list = parameters(model);
  EXPECT_EQ(total_elements(list), without + 256 * 24 + 128 * 3 * 24);
  EXPECT_EQ(list[29].name, "blocks.002.cut.decode");
  EXPECT_EQ(list[30].name, "blocks.002.cut.token_embed");
  EXPECT_EQ(list[30].shape, (std::vector<std::int64_t>{256, 24}));
  EXPECT_EQ(list[31].name, "blocks.002.cut.token_mix");
  EXPECT_EQ(list[31].shape, (std::vector<std::int64_t>{128, 72}));
  EXPECT_EQ(list[31].layer, 2);
  model.cut_width = model.dim;
  EXPECT_EQ(total_elements(parameters(model)), without - 2 * 128 * 32) << "a cut that squeezes nothing has nothing to make up for";
}

TEST(Parameters, of_stages_are_slices_of_the_whole_list) {
  const ModelConfig model;
  const std::vector<ParameterInfo> whole = parameters(model);
  std::size_t at = 0;
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    for (const ParameterInfo& info : parameters(model, StageRange{layer, layer + 1})) {
      ASSERT_LT(at, whole.size());
      EXPECT_EQ(info.name, whole[at].name);
      EXPECT_EQ(info.index, whole[at].index);
      ++at;
    }
  }
  EXPECT_EQ(at, whole.size());
}

}  // namespace
}  // namespace stagecoach::model
