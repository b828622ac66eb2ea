// See preset_settings.h.
#include "app/preset_settings.h"

namespace stagecoach::app {

std::vector<std::string> preset_overrides(const model::Preset& preset, std::optional<std::int64_t> stages) {
  RunSettings settings;
  settings.stages = stages.value_or(preset.stages);
  settings.replicas = preset.replicas;
  settings.train = model::train_config(preset, settings.stages);
  settings.cut_every = false;
  settings.numbers = settings.train.numbers.compute == model::FloatKind::bfloat16 ? NumbersChoice::bfloat16 : NumbersChoice::float32;
  const RunSettings defaults;
  std::vector<std::string> out;
  for (const Key& key : keys()) {
    const Value value = key.get(settings);
    if (value != key.get(defaults)) out.push_back(std::string(key.name) + "=" + to_toml_value(value));
  }
  return out;
}

std::string preset_names() {
  std::string out;
  for (const model::Preset& preset : model::presets()) out += (out.empty() ? "" : ", ") + std::string(preset.name);
  return out;
}

}  // namespace stagecoach::app
