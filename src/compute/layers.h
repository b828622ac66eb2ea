// One Llama layer with the halves of the cuts that touch it, on torch tensors: its forward, and its backward written out.
//
// In:      the stream before a layer, [T, W]: T = B·S tokens, W = D, or K after a bottleneck. Out: the stream after it; then the
//          gradients, against the stream and for each weight.
// Thread:  compute; no graph.
// Why:     a layer is the unit of every split: what is computed here never knows how many layers its stage has. Its backward is
//          explicit, so that what a forward keeps is known and a weight's gradient can leave as soon as it exists.
//
// Legend:  B sequences · S tokens · T = B·S · D model width · K boundary width · F SwiGLU width · H, G query and key heads ·
//          h head width · P = (H + 2G)·h · V vocabulary · r token rank · M = token window · r
#pragma once

#include <vector>

#include "base/result.h"
#include "compute/ops.h"
#include "compute/torch.h"
#include "model/config.h"
#include "model/parameters.h"

namespace stagecoach::compute {

/// A parameter, or several that lie next to each other in the stage's order and are multiplied with as one.
struct Weight {
  at::Tensor value;         // in the stage's number format
  std::int64_t offset = 0;  // its first element among the stage's elements
  bool defined() const { return value.defined(); }
};

struct LayerWeights {
  Weight attention_norm_D, wqkv_PD, wo_DD;  // queries, keys and values in one product
  Weight ffn_norm_D, w12_2FD, w3_DF;        // gate and up in one product
  Weight decode_DK;                         // undefined unless the layer receives a bottleneck's tensor
  Weight token_embed_Vr, token_mix_DM;      // undefined unless it then also looks at the tokens
  Weight encode_KD;                         // undefined unless a bottleneck follows the layer
};

/// One version of a stage's weights: the list in parameter order, and the same memory by its use.
struct WeightSet {
  std::vector<at::Tensor> tensors;
  Weight embed_VD;                   // undefined but at the head
  std::vector<LayerWeights> layers;  // of the stage, ascending
  Weight final_norm_D, head_VD;      // undefined but at the tail
};

/// Gives each tensor its use. `tensors` are in the order of `infos` = model::parameters(model, range); those that are multiplied
/// with as one are copied into common memory, of which WeightSet::tensors has views.
WeightSet weight_set(const model::StageRange& range, const std::vector<model::ParameterInfo>& infos,
                     std::vector<at::Tensor> tensors);

/// The angle a position turns pair `pair` of a head by, in radians: base^(−2·pair/h), and with rope_scaling Llama 3's slowing of the
/// pairs that turn less than four times within 8,192 tokens (Grattafiori et al. 2024; factors 1 and 4 as in Llama 3.1 and 3.2).
double rotation_frequency(const model::ModelConfig& model, std::int64_t pair);

/// shapes: cosine, sine [positions, h/2]
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

/// What a layer's forward leaves for its backward.
struct LayerKept {
  at::Tensor stream;            // what came in
  at::Tensor wide_TD;           // the same, or a receiver's ReLU
  NormOutput attention_normed;
  at::Tensor qkv_TP;            // after RoPE
  AttentionKept attention;
  at::Tensor hidden_TD;
  NormOutput ffn_normed;
  at::Tensor ab;                // [T, 2F]
  at::Tensor branch_TD;         // a sender's, before SiLU

  /// All tensors that are defined.
  std::vector<at::Tensor> tensors() const;
};

/// Takes the gradients of weights as they come into being.
class GradientSink {
 public:
  virtual ~GradientSink() = default;
  /// `gradient` belongs to the elements [offset, offset + its size) of the stage; contiguous, fp32 or bf16.
  ///
  /// errors: the caller stops, and gives nothing more of this microbatch
  virtual base::Result<void> add(std::int64_t offset, const at::Tensor& gradient) = 0;
};

/// Token ids to the first stream. shapes: tokens int64 [T] -> [T, D]
at::Tensor embed(const WeightSet& weights, const at::Tensor& tokens_T);

/// The gradient of embed's weight, row by row of the tokens that there were, each added up in fp32 in the order of its places.
base::Result<void> embed_backward(const WeightSet& weights, const at::Tensor& tokens_T, const at::Tensor& gradient_TD,
                                  GradientSink& sink);

/// One layer, its receiving half-cut before and its sending half-cut after it (reference, orion-iota-resbm §2.2):
///
///   receiver  a = Attn(n1(ReLU(D z))), h = a with z added to its first K coordinates;   plain  h = x + Attn(n1(x))
///   with its own view t of the tokens (token_view.h): a = Attn(n1(ReLU(D z + t))), h as before plus t
///   sender    z = h[:K] + W4·SiLU(W3·(SiLU(W1 u) ⊙ W2 u)), u = n2(h);                   plain  y = h + W3·(SiLU(W1 u) ⊙ W2 u)
///
/// shapes: stream [T, D or K] -> [T, D or K], contiguous
/// `kept`: null where no backward follows. `cache`: null in training; otherwise one sequence, whose past is read and which is
/// appended to, and `rotation` starts at its first new token. Neither changes the result.
at::Tensor layer(const model::ModelConfig& model, const LayerWeights& weights, const Rotation& rotation,
                 const LayerShape& shape, const at::Tensor& stream, LayerKept* kept, KeyValueCache* cache = nullptr);

/// The gradient of the stream that came in, for the gradient of the one that went out. Uses up `kept`.
///
/// errors: the sink's
base::Result<at::Tensor> layer_backward(const model::ModelConfig& model, const LayerWeights& weights, const Rotation& rotation,
                                        const LayerShape& shape, LayerKept kept, const at::Tensor& out_gradient,
                                        GradientSink& sink);

}  // namespace stagecoach::compute
