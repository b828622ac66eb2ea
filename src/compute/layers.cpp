// The layer, top to bottom, then the two functions with gradients of their own.
#include "compute/layers.h"

#include <cmath>

#include "base/check.h"
#include "compute/kernels.h"
#include "compute/token_view.h"

namespace stagecoach::compute {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor product(const at::Tensor& x, const at::Tensor& weight) { return at::mm(x, weight.t()); }

bool on_cpu(const at::Tensor& x) { return x.device().is_cpu(); }

class RotateFunction : public torch::autograd::Function<RotateFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_BSHh, const at::Tensor& cosine,
                            const at::Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return turned(x_BSHh, cosine, sine, 1.0f);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {turned(gradients[0].contiguous(), saved[0], saved[1], -1.0f), at::Tensor(), at::Tensor()};
  }

 private:
  static at::Tensor turned(const at::Tensor& x_BSHh, const at::Tensor& cosine, const at::Tensor& sine, float direction) {
    const std::int64_t half = x_BSHh.size(3) / 2;
    at::Tensor y = at::empty_like(x_BSHh);
    if (on_cpu(x_BSHh)) {
      const Heads shape{x_BSHh.size(0) * x_BSHh.size(1), x_BSHh.size(1), x_BSHh.size(2), half};
      rotate(shape, x_BSHh.const_data_ptr<float>(), cosine.const_data_ptr<float>(), sine.const_data_ptr<float>(), direction,
             y.mutable_data_ptr<float>());
      return y;
    }
    const at::Tensor first = x_BSHh.narrow(3, 0, half), second = x_BSHh.narrow(3, half, half);
    const at::Tensor c = cosine.unsqueeze(1), s = sine.unsqueeze(1) * direction;
    y.narrow(3, 0, half).copy_(first * c - second * s);
    y.narrow(3, half, half).copy_(second * c + first * s);
    return y;
  }
};

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD, const at::Tensor& weight_D, double eps) {
    at::Tensor y = at::empty_like(x_TD);
    const at::Tensor rstd = at::empty({x_TD.size(0)}, x_TD.options());
    rms_norm_forward({x_TD.size(0), x_TD.size(1)}, x_TD.const_data_ptr<float>(), weight_D.const_data_ptr<float>(),
                     static_cast<float>(eps), y.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>());
    context->save_for_backward({x_TD, weight_D, rstd});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor dy = gradients[0].contiguous();
    at::Tensor dx = at::empty_like(x);
    at::Tensor dweight = at::empty_like(saved[1]);
    rms_norm_backward({x.size(0), x.size(1)}, x.const_data_ptr<float>(), saved[1].const_data_ptr<float>(),
                      saved[2].const_data_ptr<float>(), dy.const_data_ptr<float>(), dx.mutable_data_ptr<float>(),
                      dweight.mutable_data_ptr<float>());
    return {dx, dweight, at::Tensor()};
  }
};

/// SiLU(a) ⊙ b. Keeps a and b only; torch's own graph keeps SiLU(a) too and takes twice the time back.
class GateFunction : public torch::autograd::Function<GateFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& a, const at::Tensor& b) {
    context->save_for_backward({a, b});
    return at::silu(a).mul_(b);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &a = saved[0], &b = saved[1];
    const at::Tensor dy = gradients[0].contiguous(), sigmoid = at::sigmoid(a);
    if (!on_cpu(a)) return {dy * b * (sigmoid * (1 + a * (1 - sigmoid))), dy * (a * sigmoid)};
    at::Tensor da = at::empty_like(a), db = at::empty_like(b);
    gate_backward(a.numel(), a.const_data_ptr<float>(), sigmoid.const_data_ptr<float>(), b.const_data_ptr<float>(),
                  dy.const_data_ptr<float>(), da.mutable_data_ptr<float>(), db.mutable_data_ptr<float>());
    return {da, db};
  }
};

class TokenViewFunction : public torch::autograd::Function<TokenViewFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& past_BN, std::int64_t places, const at::Tensor& embed_Vr,
                            const at::Tensor& mix_DM) {
    context->save_for_backward({past_BN, embed_Vr, mix_DM});
    context->saved_data["places"] = places;
    return token_view({past_BN, places}, embed_Vr, mix_DM);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const TokenPast past{saved[0], context->saved_data["places"].toInt()};
    TokenViewGradients found = token_view_backward(past, saved[1], saved[2], gradients[0].contiguous());
    return {at::Tensor(), at::Tensor(), found.embed_Vr, found.mix_DM};
  }
};

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

/// Gives each query head its key (or value) head. shapes: [B, S, G, h] -> [B, S, H, h]
at::Tensor repeated(const at::Tensor& x_BSGh, std::int64_t heads) {
  const std::int64_t groups = x_BSGh.size(2);
  if (groups == heads) return x_BSGh;
  return x_BSGh.unsqueeze(3)
      .expand({x_BSGh.size(0), x_BSGh.size(1), groups, heads / groups, x_BSGh.size(3)})
      .reshape({x_BSGh.size(0), x_BSGh.size(1), heads, x_BSGh.size(3)});
}

/// Causal grouped-query attention with RoPE. shapes: [T, D] -> [T, D]
at::Tensor attention(const model::ModelConfig& model, const LayerWeights& weights, const Rotation& rotation, LayerShape shape,
                     const at::Tensor& x_TD, KeyValueCache* cache) {
  const std::int64_t width = model.head_width();
  const auto by_head = [&](const at::Tensor& x, std::int64_t heads) {
    return x.view({shape.sequences, shape.tokens, heads, width});
  };
  const at::Tensor q = RotateFunction::apply(by_head(product(x_TD, weights.wq_DD), model.heads), rotation.cosine, rotation.sine);
  at::Tensor k = RotateFunction::apply(by_head(product(x_TD, weights.wk_ED), model.kv_heads), rotation.cosine, rotation.sine);
  at::Tensor v = by_head(product(x_TD, weights.wv_ED), model.kv_heads);
  bool causal = true;
  if (cache != nullptr) {
    CHECK(shape.sequences == 1 && (cache->length == 0 || shape.tokens == 1),
          "a cache is filled by one prompt and then token by token");
    causal = cache->length == 0;
    k = appended(cache->keys_SGh, cache->length, k[0]).unsqueeze(0);
    v = appended(cache->values_SGh, cache->length, v[0]).unsqueeze(0);
    cache->length += shape.tokens;
  }
  const at::Tensor out_BHSh =
      at::scaled_dot_product_attention(q.transpose(1, 2), repeated(k, model.heads).transpose(1, 2),
                                       repeated(v, model.heads).transpose(1, 2), {}, 0.0, causal);
  return product(out_BHSh.transpose(1, 2).reshape({shape.sequences * shape.tokens, model.dim}), weights.wo_DD);
}

/// W3·(SiLU(W1 u) ⊙ W2 u), and for a sender W4·SiLU(of that). shapes: [T, D] -> [T, D or K]
at::Tensor feed_forward(const LayerWeights& weights, const at::Tensor& u_TD) {
  const at::Tensor gated_TF = GateFunction::apply(product(u_TD, weights.w1_FD), product(u_TD, weights.w2_FD));
  const at::Tensor out_TD = product(gated_TF, weights.w3_DF);
  return weights.encode_KD.defined() ? product(at::silu(out_TD), weights.encode_KD) : out_TD;
}

/// Stores a tensor at its use, which is its name behind "blocks.<layer>.".
void place(LayerWeights& layer, const std::string& name, const at::Tensor& tensor) {
  const std::pair<const char*, at::Tensor*> uses[] = {
      {"attention_norm", &layer.attention_norm_D}, {"attention.wq", &layer.wq_DD}, {"attention.wk", &layer.wk_ED},
      {"attention.wv", &layer.wv_ED},              {"attention.wo", &layer.wo_DD}, {"ffn_norm", &layer.ffn_norm_D},
      {"ffn.w1", &layer.w1_FD},                    {"ffn.w2", &layer.w2_FD},       {"ffn.w3", &layer.w3_DF},
      {"cut.decode", &layer.decode_DK},            {"cut.encode", &layer.encode_KD},
      {"cut.token_embed", &layer.token_embed_Vr},  {"cut.token_mix", &layer.token_mix_DM}};
  const std::string use_name = name.substr(name.find('.', name.find('.') + 1) + 1);
  for (const auto& [use, where] : uses) {
    if (use_name == use) *where = tensor;
  }
}

}  // namespace

at::Tensor layer(const model::ModelConfig& model, const LayerWeights& weights, const Rotation& rotation, LayerShape shape,
                 const at::Tensor& stream, KeyValueCache* cache) {
  const bool receives = weights.decode_DK.defined(), looks = weights.token_mix_DM.defined();
  const at::Tensor view_TD =
      looks ? TokenViewFunction::apply(shape.past_BN, shape.tokens, weights.token_embed_Vr, weights.token_mix_DM) : at::Tensor();
  const at::Tensor decoded_TD = receives ? product(stream, weights.decode_DK) : stream;
  const at::Tensor wide_TD = receives ? at::relu(looks ? decoded_TD + view_TD : decoded_TD) : stream;
  const at::Tensor attended_TD =
      attention(model, weights, rotation, shape, rms_norm(wide_TD, weights.attention_norm_D, model.norm_eps), cache);
  const at::Tensor widened_TD =
      receives ? attended_TD + at::constant_pad_nd(stream, {0, model.dim - stream.size(1)}) : stream + attended_TD;
  const at::Tensor hidden_TD = looks ? widened_TD + view_TD : widened_TD;
  const at::Tensor branch = feed_forward(weights, rms_norm(hidden_TD, weights.ffn_norm_D, model.norm_eps));
  return weights.encode_KD.defined() ? hidden_TD.narrow(1, 0, branch.size(1)) + branch : hidden_TD + branch;
}

at::Tensor embed(const WeightSet& weights, const at::Tensor& tokens_T) { return weights.embed_VD.index_select(0, tokens_T); }

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (on_cpu(x)) return RmsNormFunction::apply(x, weight, eps);
  return x * at::rsqrt(x.square().mean(-1, true) + eps) * weight;
}

Rotation make_rotation(const model::ModelConfig& model, std::int64_t positions, const at::Device& device) {
  const std::int64_t half = model.head_width() / 2;
  Rotation rotation{at::empty({positions, half}), at::empty({positions, half})};
  float* cosine = rotation.cosine.mutable_data_ptr<float>();
  float* sine = rotation.sine.mutable_data_ptr<float>();
  for (std::int64_t position = 0; position < positions; ++position) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double exponent = -static_cast<double>(i) / static_cast<double>(half);
      const double angle = static_cast<double>(position) * std::pow(model.rope_base, exponent);
      cosine[position * half + i] = static_cast<float>(std::cos(angle));
      sine[position * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return Rotation{rotation.cosine.to(device), rotation.sine.to(device)};
}

WeightSet weight_set(const model::StageRange& range, const std::vector<model::ParameterInfo>& infos,
                     std::vector<at::Tensor> tensors) {
  CHECK(infos.size() == tensors.size(), "one tensor a parameter");
  WeightSet set;
  set.layers.resize(static_cast<std::size_t>(range.last - range.first));
  for (std::size_t i = 0; i < infos.size(); ++i) {
    if (infos[i].layer < 0) {
      set.embed_VD = tensors[i];
    } else if (infos[i].layer < range.last) {
      place(set.layers[static_cast<std::size_t>(infos[i].layer - range.first)], infos[i].name, tensors[i]);
    } else {
      (infos[i].shape.size() == 1 ? set.final_norm_D : set.head_VD) = tensors[i];
    }
  }
  set.tensors = std::move(tensors);
  return set;
}

}  // namespace stagecoach::compute
