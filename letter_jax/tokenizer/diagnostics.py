import numpy as np
def summarize(codes, k):
  return {'collision_rate': 1-len(np.unique(codes,axis=0))/len(codes)}
