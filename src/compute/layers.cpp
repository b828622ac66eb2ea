// The layer top to bottom, then bottom to top, then the weights it finds.
#include "compute/layers.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "compute/kernels.h"
#include "compute/token_view.h"

namespace stagecoach::compute {
namespace {

AttentionShape attention_shape(const model::ModelConfig& model, const LayerShape& shape) {
  return {shape.sequences, shape.tokens, model.heads, model.kv_heads, model.head_width()};
}

/// Appends this call's keys or values to a cache tensor, doubling it where it is full, and returns the filled part.
at::Tensor appended(at::Tensor& cache_SGh, std::int64_t length, const at::Tensor& fresh_SGh) {
  const std::int64_t needed = length + fresh_SGh.size(0);
  if (!cache_SGh.defined() || cache_SGh.size(0) < needed) {
    std::int64_t capacity = 256;
    while (capacity < needed) capacity *= 2;
    at::Tensor larger = at::zeros({capacity, fresh_SGh.size(1), fresh_SGh.size(2)}, fresh_SGh.options());
    if (length > 0) larger.narrow(0, 0, length).copy_(cache_SGh.narrow(0, 0, length));
    cache_SGh = larger;
  }
  cache_SGh.narrow(0, length, fresh_SGh.size(0)).copy_(fresh_SGh);
  return cache_SGh.narrow(0, 0, needed);
}

/// Attention of one sequence's new tokens with all of its past. shapes: qkv [S, P] -> [S, D]
at::Tensor cached_attention(const AttentionShape& shape, const at::Tensor& qkv_TP, KeyValueCache& cache) {
  CHECK(shape.sequences == 1 && (cache.length == 0 || shape.tokens == 1),
        "a cache is filled by one prompt and then token by token");
  const bool causal = cache.length == 0;
  const at::Tensor by_head = qkv_TP.view({shape.tokens, shape.heads + 2 * shape.kv_heads, shape.width});
  const auto heads_first = [&](const at::Tensor& x_SGh) {
    return x_SGh.repeat_interleave(shape.heads / x_SGh.size(1), 1).transpose(0, 1).unsqueeze(0);
  };
  const at::Tensor k = appended(cache.keys_SGh, cache.length, by_head.narrow(1, shape.heads, shape.kv_heads));
  const at::Tensor v =
      appended(cache.values_SGh, cache.length, by_head.narrow(1, shape.heads + shape.kv_heads, shape.kv_heads));
  cache.length += shape.tokens;
  const at::Tensor out_BHSh = at::scaled_dot_product_attention(heads_first(by_head.narrow(1, 0, shape.heads)), heads_first(k),
                                                               heads_first(v), {}, 0.0, causal);
  return out_BHSh[0].transpose(0, 1).reshape({shape.tokens, shape.heads * shape.width});
}

/// The pieces of a layer's name behind "blocks.<layer>." and the weight that each belongs to.
Weight* use_of(LayerWeights& layer, const std::string& name) {
  const std::pair<const char*, Weight*> uses[] = {
      {"attention_norm", &layer.attention_norm_D}, {"attention.wq", &layer.wqkv_PD},
      {"attention.wk", &layer.wqkv_PD},            {"attention.wv", &layer.wqkv_PD},
      {"attention.wo", &layer.wo_DD},              {"ffn_norm", &layer.ffn_norm_D},
      {"ffn.w1", &layer.w12_2FD},                  {"ffn.w2", &layer.w12_2FD},
      {"ffn.w3", &layer.w3_DF},                    {"cut.decode", &layer.decode_DK},
      {"cut.encode", &layer.encode_KD},            {"cut.token_embed", &layer.token_embed_Vr},
      {"cut.token_mix", &layer.token_mix_DM}};
  const std::string use_name = name.substr(name.find('.', name.find('.') + 1) + 1);
  for (const auto& [use, where] : uses) {
    if (use_name == use) return where;
  }
  CHECK(false, "every parameter of a layer has a use");
  return nullptr;
}

}  // namespace

at::Tensor layer(const model::ModelConfig& model, const LayerWeights& weights, const Rotation& rotation,
                 const LayerShape& shape, const at::Tensor& stream, LayerKept* kept, KeyValueCache* cache) {
  const bool receives = weights.decode_DK.defined(), looks = weights.token_mix_DM.defined();
  const AttentionShape heads = attention_shape(model, shape);
  at::Tensor view_TD, wide_TD = stream;
  if (looks) view_TD = token_view({shape.past_BN, shape.tokens}, weights.token_embed_Vr.value, weights.token_mix_DM.value);
  if (receives) {
    wide_TD = product(stream, weights.decode_DK.value);
    if (looks) wide_TD.add_(view_TD);
    wide_TD.relu_();
  }
  NormOutput attention_normed = rms_norm(wide_TD, weights.attention_norm_D.value, model.norm_eps);
  at::Tensor qkv_TP = product(attention_normed.y_TD, weights.wqkv_PD.value);
  rotate(heads, rotation, Turn::forward, qkv_TP);
  AttentionKept attended;
  if (cache != nullptr) {
    attended.out_TD = cached_attention(heads, qkv_TP, *cache);
  } else {
    attended = attention_forward(heads, qkv_TP);
  }
  at::Tensor hidden_TD;
  if (receives) {
    hidden_TD = product(attended.out_TD, weights.wo_DD.value);
    hidden_TD.narrow(1, 0, stream.size(1)).add_(stream);
    if (looks) hidden_TD.add_(view_TD);
  } else {
    hidden_TD = product(attended.out_TD, weights.wo_DD.value, stream);
  }
  NormOutput ffn_normed = rms_norm(hidden_TD, weights.ffn_norm_D.value, model.norm_eps);
  at::Tensor ab = product(ffn_normed.y_TD, weights.w12_2FD.value), branch_TD, out;
  const at::Tensor gated_TF = gate(ab);
  if (weights.encode_KD.defined()) {
    branch_TD = product(gated_TF, weights.w3_DF.value);
    out = product(silu_forward(branch_TD), weights.encode_KD.value, hidden_TD.narrow(1, 0, weights.encode_KD.value.size(0)));
  } else {
    out = product(gated_TF, weights.w3_DF.value, hidden_TD);
  }
  if (kept != nullptr) {
    *kept = {stream,    wide_TD, std::move(attention_normed), qkv_TP, std::move(attended), hidden_TD, std::move(ffn_normed), ab,
             branch_TD};
  }
  return out;
}

base::Result<at::Tensor> layer_backward(const model::ModelConfig& model, const LayerWeights& weights, const Rotation& rotation,
                                        const LayerShape& shape, LayerKept kept, const at::Tensor& out_gradient,
                                        GradientSink& sink) {
  const bool receives = weights.decode_DK.defined(), looks = weights.token_mix_DM.defined();
  const AttentionShape heads = attention_shape(model, shape);

  // The feed-forward half: back through the branch to the hidden stream.
  at::Tensor branch_gradient_TD = out_gradient;
  if (weights.encode_KD.defined()) {
    branch_gradient_TD = input_gradient(out_gradient, weights.encode_KD.value);
    const at::Tensor active_TD = silu_backward(kept.branch_TD, branch_gradient_TD);
    RETURN_IF_ERROR(sink.add(weights.encode_KD.offset, weight_gradient(out_gradient, active_TD)));
  }
  {
    const at::Tensor gated_TF = gate_backward(kept.ab, input_gradient(branch_gradient_TD, weights.w3_DF.value));
    RETURN_IF_ERROR(sink.add(weights.w3_DF.offset, weight_gradient(branch_gradient_TD, gated_TF)));
  }
  RETURN_IF_ERROR(sink.add(weights.w12_2FD.offset, weight_gradient(kept.ab, kept.ffn_normed.y_TD)));
  NormGradients normed = rms_norm_backward(kept.hidden_TD, weights.ffn_norm_D.value, kept.ffn_normed.rstd_T,
                                           input_gradient(kept.ab, weights.w12_2FD.value), out_gradient);
  RETURN_IF_ERROR(sink.add(weights.ffn_norm_D.offset, normed.weight_D));
  const at::Tensor hidden_gradient_TD = std::move(normed.x_TD);
  kept.ab.reset();

  // The attention half.
  RETURN_IF_ERROR(sink.add(weights.wo_DD.offset, weight_gradient(hidden_gradient_TD, kept.attention.out_TD)));
  at::Tensor qkv_gradient_TP =
      attention_backward(heads, kept.qkv_TP, kept.attention, input_gradient(hidden_gradient_TD, weights.wo_DD.value));
  rotate(heads, rotation, Turn::back, qkv_gradient_TP);
  RETURN_IF_ERROR(sink.add(weights.wqkv_PD.offset, weight_gradient(qkv_gradient_TP, kept.attention_normed.y_TD)));
  normed = rms_norm_backward(kept.wide_TD, weights.attention_norm_D.value, kept.attention_normed.rstd_T,
                             input_gradient(qkv_gradient_TP, weights.wqkv_PD.value), receives ? at::Tensor() : hidden_gradient_TD);
  RETURN_IF_ERROR(sink.add(weights.attention_norm_D.offset, normed.weight_D));
  if (!receives) return normed.x_TD;

  // The receiving half of a cut.
  const at::Tensor wide_gradient_TD = at::threshold_backward(normed.x_TD, kept.wide_TD, 0);
  RETURN_IF_ERROR(sink.add(weights.decode_DK.offset, weight_gradient(wide_gradient_TD, kept.stream)));
  if (looks) {
    const TokenViewGradients found =
        token_view_backward({shape.past_BN, shape.tokens}, weights.token_embed_Vr.value, weights.token_mix_DM.value,
                            wide_gradient_TD + hidden_gradient_TD);
    RETURN_IF_ERROR(sink.add(weights.token_embed_Vr.offset, found.embed_Vr));
    RETURN_IF_ERROR(sink.add(weights.token_mix_DM.offset, found.mix_DM));
  }
  return input_gradient(wide_gradient_TD, weights.decode_DK.value, hidden_gradient_TD.narrow(1, 0, kept.stream.size(1)));
}

std::vector<at::Tensor> LayerKept::tensors() const {
  std::vector<at::Tensor> out;
  for (const at::Tensor* one : {&stream, &wide_TD, &attention_normed.y_TD, &attention_normed.rstd_T, &qkv_TP, &attention.out_TD,
                                &attention.lse_BHS, &attention.seed, &attention.offset, &hidden_TD, &ffn_normed.y_TD,
                                &ffn_normed.rstd_T, &ab, &branch_TD}) {
    if (one->defined()) out.push_back(*one);
  }
  return out;
}

at::Tensor embed(const WeightSet& weights, const at::Tensor& tokens_T) { return weights.embed_VD.value.index_select(0, tokens_T); }

base::Result<void> embed_backward(const WeightSet& weights, const at::Tensor& tokens_T, const at::Tensor& gradient_TD,
                                  GradientSink& sink) {
  if (!gradient_TD.device().is_cpu()) {
    return sink.add(weights.embed_VD.offset, at::embedding_dense_backward(gradient_TD.to(at::kFloat), tokens_T,
                                                                          weights.embed_VD.value.size(0), -1, false));
  }
  const std::int64_t* tokens = tokens_T.const_data_ptr<std::int64_t>();
  const std::int64_t width = gradient_TD.size(1);
  std::vector<std::int64_t> order(static_cast<std::size_t>(tokens_T.numel()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [tokens](std::int64_t a, std::int64_t b) { return tokens[a] < tokens[b]; });
  for (std::size_t first = 0; first < order.size();) {
    const std::int64_t token = tokens[order[first]];
    const at::Tensor row = at::zeros({width}, at::kFloat);
    float* sums = row.mutable_data_ptr<float>();
    for (; first < order.size() && tokens[order[first]] == token; ++first) {
      if (gradient_TD.scalar_type() == at::kBFloat16) {
        add_row(width, static_cast<const BFloat*>(gradient_TD.const_data_ptr()) + order[first] * width, sums);
      } else {
        add_row(width, gradient_TD.const_data_ptr<float>() + order[first] * width, sums);
      }
    }
    RETURN_IF_ERROR(sink.add(weights.embed_VD.offset + token * width, row));
  }
  return {};
}

Rotation make_rotation(const model::ModelConfig& model, std::int64_t positions, const at::Device& device) {
  const std::int64_t half = model.head_width() / 2;
  Rotation rotation{at::empty({positions, half}), at::empty({positions, half})};
  float* cosine = rotation.cosine.mutable_data_ptr<float>();
  float* sine = rotation.sine.mutable_data_ptr<float>();
  for (std::int64_t position = 0; position < positions; ++position) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * rotation_frequency(model, i);
      cosine[position * half + i] = static_cast<float>(std::cos(angle));
      sine[position * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return Rotation{rotation.cosine.to(device), rotation.sine.to(device)};
}

double rotation_frequency(const model::ModelConfig& model, std::int64_t pair) {
  constexpr double kTwoPi = 6.283185307179586;
  constexpr double kTrainedTokens = 8'192, kLowFactor = 1, kHighFactor = 4;
  const double frequency = std::pow(model.rope_base, -2.0 * static_cast<double>(pair) / static_cast<double>(model.head_width()));
  if (model.rope_scaling == 1.0) return frequency;
  // How often the pair turns within the length of the first training; slow pairs are slowed, fast ones kept, between them a ramp.
  const double turns = kTrainedTokens * frequency / kTwoPi;
  const double kept = std::clamp((turns - kLowFactor) / (kHighFactor - kLowFactor), 0.0, 1.0);
  return frequency * (kept + (1.0 - kept) / model.rope_scaling);
}

WeightSet weight_set(const model::StageRange& range, const std::vector<model::ParameterInfo>& infos,
                     std::vector<at::Tensor> tensors) {
  CHECK(infos.size() == tensors.size(), "one tensor a parameter");
  WeightSet set;
  set.layers.resize(static_cast<std::size_t>(range.last - range.first));
  std::int64_t offset = 0;
  for (std::size_t first = 0; first < infos.size();) {
    const auto use = [&](std::size_t i) -> Weight* {
      if (infos[i].layer < 0) return &set.embed_VD;
      if (infos[i].layer >= range.last) return infos[i].shape.size() == 1 ? &set.final_norm_D : &set.head_VD;
      return use_of(set.layers[static_cast<std::size_t>(infos[i].layer - range.first)], infos[i].name);
    };
    Weight* const weight = use(first);
    std::size_t last = first + 1;
    while (last < infos.size() && use(last) == weight) ++last;
    weight->offset = offset;
    if (last - first == 1) {
      weight->value = tensors[first];
    } else {
      const at::NoGradGuard no_graph;
      weight->value = at::cat(at::TensorList(tensors).slice(first, last - first));
      std::int64_t row = 0;
      for (std::size_t i = first; i < last; ++i) {
        const std::int64_t rows = tensors[i].size(0);
        tensors[i] = weight->value.narrow(0, row, rows);
        row += rows;
      }
    }
    for (; first < last; ++first) offset += infos[first].elements();
  }
  set.tensors = std::move(tensors);
  return set;
}

}  // namespace stagecoach::compute
