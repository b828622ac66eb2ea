// One Llama layer with the halves of the cuts that touch it, on torch tensors.
//
// In:      the stream before a layer, [T, W]: T = B·S tokens, W = D, or K after a bottleneck. Out: the stream after it.
// Thread:  compute. With or without a graph, as the caller's grad mode says; the kernels are the same.
// Why:     a layer is the unit of every split: what is computed here never knows how many layers its stage has.
//
// Legend:  B sequences · S tokens · T = B·S · D model width · K boundary width · F SwiGLU width · H, G query and key heads · h head width
#pragma once

#include <vector>

#include "compute/torch.h"
#include "model/config.h"
#include "model/parameters.h"

namespace stagecoach::compute {

struct LayerWeights {
  at::Tensor attention_norm_D, wq_DD, wk_ED, wv_ED, wo_DD;  // E = G·h
  at::Tensor ffn_norm_D, w1_FD, w2_FD, w3_DF;
  at::Tensor decode_DK;  // undefined unless the layer receives a bottleneck's tensor
  at::Tensor token_embed_Vr, token_mix_DM;  // undefined unless it then also looks at the tokens (M = w·r)
  at::Tensor encode_KD;  // undefined unless a bottleneck follows the layer
};

/// One version of a stage's weights: the list in parameter order, and the same tensors by their use.
struct WeightSet {
  std::vector<at::Tensor> tensors;
  at::Tensor embed_VD;                // undefined but at the head
  std::vector<LayerWeights> layers;   // of the stage, ascending
  at::Tensor final_norm_D, head_VD;   // undefined but at the tail
};

/// Gives each tensor its use. `tensors` are in the order of `infos` = model::parameters(model, range).
WeightSet weight_set(const model::StageRange& range, const std::vector<model::ParameterInfo>& infos,
                     std::vector<at::Tensor> tensors);

/// The angles of RoPE for positions 0 … S−1. shapes: cosine, sine [S, h/2]
struct Rotation {
  at::Tensor cosine, sine;
};
Rotation make_rotation(const model::ModelConfig& model, std::int64_t positions, const at::Device& device);

/// Keys and values of the tokens that one layer has read, for generation.
struct KeyValueCache {
  at::Tensor keys_SGh, values_SGh;  // the first `length` positions are filled
  std::int64_t length = 0;
};

struct LayerShape {
  std::int64_t sequences = 0;
  std::int64_t tokens = 0;  // a sequence
  at::Tensor past_BN;  // int64, where a layer looks at tokens: those of the stream's places, in generation w − 1 earlier ones too
};

/// Token ids to the first stream. shapes: tokens int64 [T] -> [T, D]
at::Tensor embed(const WeightSet& weights, const at::Tensor& tokens_T);

/// One layer, its receiving half-cut before and its sending half-cut after it (reference, orion-iota-resbm §2.2):
///
///   receiver  a = Attn(n1(ReLU(D z))), h = a with z added to its first K coordinates;   plain  h = x + Attn(n1(x))
///   with its own view t of the tokens (token_view.h): a = Attn(n1(ReLU(D z + t))), h as before plus t
///   sender    z = h[:K] + W4·SiLU(W3·(SiLU(W1 u) ⊙ W2 u)), u = n2(h);                   plain  y = h + W3·(SiLU(W1 u) ⊙ W2 u)
///
/// shapes: stream [T, D or K] -> [T, D or K], contiguous
/// `cache`: null in training. Otherwise one sequence; its past is read and it is appended to; `rotation` starts at its first new token.
at::Tensor layer(const model::ModelConfig& model, const LayerWeights& weights, const Rotation& rotation, LayerShape shape,
                 const at::Tensor& stream, KeyValueCache* cache);

/// RMSNorm with weight. shapes: [T, D] -> [T, D]
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace stagecoach::compute
