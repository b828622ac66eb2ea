// Claim: a stage holds the elements that model::parameters lists for its layers, whatever the cut and the split: `stagecoach model`
// counts these stages and not another model.
#include "compute/test_stages.h"

namespace stagecoach::compute {
namespace {

TEST(Counts, a_stage_holds_the_listed_elements) {
  for (const model::CutKind kind : {model::CutKind::none, model::CutKind::resbm, model::CutKind::resbm_tokens}) {
    model::TrainConfig config = small_config();
    config.model.cut_kind = kind;
    for (const std::int64_t stages : {1, 2, 4}) {
      const Fleet fleet = make_fleet(config, stages);
      std::int64_t sum = 0;
      for (std::size_t i = 0; i < fleet.stages.size(); ++i) {
        const auto list = model::parameters(config.model, fleet.split[i]);
        EXPECT_EQ(fleet.stages[i]->elements(), model::total_elements(list));
        std::int64_t weight_bytes = 0;
        const auto state = value(fleet.stages[i]->export_state());
        for (std::size_t t = 0; t < list.size(); ++t) weight_bytes += static_cast<std::int64_t>(state[t].tensor.bytes->size());
        EXPECT_EQ(weight_bytes, 4 * fleet.stages[i]->elements());
        sum += fleet.stages[i]->elements();
      }
      EXPECT_EQ(sum, model::total_elements(model::parameters(config.model)));
    }
  }
}

}  // namespace
}  // namespace stagecoach::compute
